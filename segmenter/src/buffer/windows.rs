//! Room to read the buffer's files into, used again and again.
//!
//! What is read is handed out as slices of its window, so a window is free once nobody holds any of them. Fresh memory
//! would cost a page fault for every 4 KiB and be filled with zeros first: together more than the read itself.

use bytes::{Bytes, BytesMut};

/// Windows that were read into before.
#[derive(Debug, Default)]
pub(super) struct Windows {
    used: Vec<Bytes>,
}

impl Windows {
    /// Room of this length; what it holds has no meaning.
    pub(super) fn room(&mut self, len: usize) -> BytesMut {
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

    /// Gives all of it back: nothing is read for a while.
    pub(super) fn clear(&mut self) {
        self.used = Vec::new();
    }
}

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
        windows.clear();
        windows.keep(Bytes::from(vec![1; KEPT_BYTES_MAX + 1]));
        assert!(windows.used.is_empty());
    }
}
