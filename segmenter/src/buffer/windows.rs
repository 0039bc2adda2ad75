//! Room to read the buffer's files into, used again and again.
//!
//! What is read is handed out as slices of its window, so a window is free once nobody holds any of them. Fresh memory
//! would cost a page fault for every 4 KiB and be filled with zeros first: together more than the read itself.

use bytes::{Bytes, BytesMut};

/// Windows that were read into before.
#[derive(Debug, Default)]
pub(super) struct Windows {
    used: Vec<Bytes>,
    /// How often there was nothing to read since room was last asked for.
    vain_looks: u32,
}

impl Windows {
    /// Room of this length; what it holds has no meaning.
    pub(super) fn room(&mut self, len: usize) -> BytesMut {
        self.vain_looks = 0;
        let free = self.used.iter().position(Bytes::is_unique);
        let mut room = free.map_or_else(BytesMut::new, |at| self.used.swap_remove(at).into());
        room.resize(len, 0);
        room
    }

    /// Keeps a window to be used again. One that a very long frame has asked for is given back.
    pub(super) fn keep(&mut self, window: Bytes) {
        if !window.is_empty() && window.len() <= KEPT_BYTES_MAX && self.used.len() < KEPT_MAX {
            self.used.push(window);
        }
    }

    /// There is nothing to read now. One is kept for what comes next, until it has been so for a while: of a producer at a
    /// steady rate there is nothing to read at most looks.
    pub(super) fn looked_in_vain(&mut self) {
        self.vain_looks = self.vain_looks.saturating_add(1);
        let kept = usize::from(self.vain_looks < VAIN_LOOKS_MAX);
        if self.used.len() > kept {
            // The largest that is free.
            self.used
                .sort_by_key(|window| (!window.is_unique(), std::cmp::Reverse(window.len())));
            self.used.truncate(kept);
        }
    }
}

/// A second of them, as often as readers look by default.
const VAIN_LOOKS_MAX: u32 = 50;
/// As many as one reading fills, and one more.
const KEPT_MAX: usize = 4;
const KEPT_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_used_again_once_nobody_holds_a_part_of_it() {
        let mut windows = Windows::default();
        let first = windows.room(1 << 20).freeze();
        let (place, slice) = (first.as_ptr(), first.slice(7..9));
        windows.keep(first);
        assert_ne!(windows.room(100).as_ptr(), place, "a slice of it is held");
        drop(slice);
        let again = windows.room(100);
        assert_eq!((again.as_ptr(), again.len()), (place, 100));
        windows.keep(again.freeze());
        let grown = windows.room(1 << 20);
        assert_eq!(
            (grown.as_ptr(), grown.len()),
            (place, 1 << 20),
            "it keeps its size"
        );
    }

    #[test]
    fn what_is_too_much_is_given_back() {
        let mut windows = Windows::default();
        for _ in 0..2 * KEPT_MAX {
            windows.keep(Bytes::from(vec![1; 10]));
        }
        assert_eq!(windows.used.len(), KEPT_MAX);
        let mut windows = Windows::default();
        windows.keep(Bytes::from(vec![1; KEPT_BYTES_MAX + 1]));
        assert!(windows.used.is_empty());
    }

    #[test]
    fn who_finds_nothing_keeps_one_and_after_a_while_none() {
        let mut windows = Windows::default();
        for _ in 0..2 {
            windows.keep(Bytes::from(vec![1; 10]));
            windows.keep(Bytes::from(vec![1; 10]));
            (1..VAIN_LOOKS_MAX).for_each(|_| windows.looked_in_vain());
            assert_eq!(windows.used.len(), 1, "there may be something to read soon");
            drop(windows.room(10));
        }
        windows.keep(Bytes::from(vec![1; 10]));
        (0..VAIN_LOOKS_MAX).for_each(|_| windows.looked_in_vain());
        assert!(windows.used.is_empty());
    }
}
