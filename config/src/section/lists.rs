//! Lists and tables: texts, topic patterns, names by names.

use std::collections::BTreeMap;

use serde_yaml::Value;

use super::{Section, plain};
use crate::pattern::{TopicFilter, TopicPattern};

impl Section<'_> {
    /// A list of texts, or a single one.
    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let items = match self.ask(key)? {
            Value::Sequence(items) => items,
            Value::String(text) => vec![Value::String(text)],
            _ => {
                self.problem(key, "must be a list of texts", "begin each item with `- `");
                return None;
            }
        };
        let mut texts = Vec::new();
        for item in items {
            match item {
                Value::String(text) => texts.extend(self.interpolated(key, &text)),
                _ => self.problem(key, "has an item that is not text", "put each item in quotes"),
            }
        }
        Some(texts)
    }

    /// A list of topic patterns.
    pub(crate) fn patterns(&mut self, key: &'static str) -> Option<Vec<TopicPattern>> {
        let mut patterns = Vec::new();
        for text in self.texts(key)? {
            match TopicPattern::parse(&text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.problem(
                    key,
                    format!("{text:?}: {error}"),
                    "write a name, a glob as `orders-*`, or `regex:…` for the whole name",
                ),
            }
        }
        Some(patterns)
    }

    /// `topics:` with `include` and `exclude`, or simply a list of what to include.
    pub(crate) fn topics(&mut self, key: &'static str) -> Option<TopicFilter> {
        if matches!(self.mapping.get(key), Some(Value::Sequence(_) | Value::String(_))) {
            return self
                .patterns(key)
                .map(|include| TopicFilter::new(include, Vec::new()));
        }
        let mut section = self.section(key)?;
        let include = section.patterns("include").unwrap_or_default();
        let exclude = section.patterns("exclude").unwrap_or_default();
        section.finish();
        Some(TopicFilter::new(include, exclude))
    }

    /// A mapping whose keys are not ours, as text to text.
    pub(crate) fn table(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let Some(Value::Mapping(mapping)) = self.ask(key) else {
            if self.has(key) {
                self.problem(
                    key,
                    "must be a mapping",
                    "write `name: value` lines indented below",
                );
            }
            return None;
        };
        let mut table = BTreeMap::new();
        for (name, value) in &mapping {
            match (plain(name), plain(value)) {
                (Some(name), Some(value)) => {
                    table.extend(self.interpolated(key, &value).map(|value| (name, value)));
                }
                _ => self.problem(
                    key,
                    "has an entry that is not `name: value`",
                    "write `name: value` lines",
                ),
            }
        }
        Some(table)
    }
}
