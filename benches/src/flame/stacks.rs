//! What `perf script` prints, folded into one tree.

use std::collections::BTreeMap;

/// A function below the one that called it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Frames {
    samples: u64,
    /// By name.
    pub(super) called: BTreeMap<String, Frames>,
}

impl Frames {
    /// Of samples that are blocks of lines: the thread's name, then one line per frame, from the innermost one, with
    /// address and function.
    pub(super) fn of(script: &str) -> Frames {
        let mut root = Frames::default();
        let mut lines = script.lines().peekable();
        while let Some(thread) = lines.next() {
            if thread.trim().is_empty() {
                continue;
            }
            let mut stack = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
                let function = line
                    .trim()
                    .split_once(' ')
                    .map_or("[unknown]", |(_, function)| function);
                stack.push(without_hash(function));
            }
            root.add(thread.trim(), stack.iter().rev().copied());
        }
        root
    }

    fn add<'a>(&mut self, thread: &'a str, functions: impl Iterator<Item = &'a str>) {
        self.samples += 1;
        let mut at = self;
        for name in std::iter::once(thread).chain(functions) {
            at = at.called.entry(name.to_owned()).or_default();
            at.samples += 1;
        }
    }

    /// Samples in it and in what it called.
    pub(super) fn samples(&self) -> u64 {
        self.samples
    }

    /// Levels below this one.
    pub(super) fn depth(&self) -> usize {
        self.called
            .values()
            .map(|frames| frames.depth() + 1)
            .max()
            .unwrap_or(0)
    }

    /// Every function with the samples in which it ran itself, most first.
    pub(super) fn own(&self) -> Vec<(&str, u64)> {
        let mut own = BTreeMap::new();
        self.note_own(&mut own);
        let mut own: Vec<_> = own.into_iter().filter(|(_, samples)| *samples > 0).collect();
        own.sort_by_key(|(name, samples)| (std::cmp::Reverse(*samples), *name));
        own
    }

    fn note_own<'a>(&'a self, own: &mut BTreeMap<&'a str, u64>) {
        for (name, frames) in &self.called {
            let below: u64 = frames.called.values().map(Frames::samples).sum();
            *own.entry(name).or_default() += frames.samples.saturating_sub(below);
            frames.note_own(own);
        }
    }
}

/// Rust's symbols end in a hash that says nothing to people.
fn without_hash(function: &str) -> &str {
    match function.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
worker \n\t    7f01 copy\n\t    5501 core::read::h0123456789abcdef\n\t    4401 main\n\n\
worker \n\t    5502 core::read::h0123456789abcdef\n\t    4401 main\n\n\
wal-writer \n\t    7f09 [unknown]\n\n";

    #[test]
    fn stacks_are_folded_from_the_outside_in() {
        let frames = Frames::of(SCRIPT);
        assert_eq!((frames.samples(), frames.depth()), (3, 4));
        let read = &frames.called["worker"].called["main"].called["core::read"];
        assert_eq!(read.samples(), 2);
        assert_eq!(frames.own(), [("[unknown]", 1), ("copy", 1), ("core::read", 1)]);
    }
}
