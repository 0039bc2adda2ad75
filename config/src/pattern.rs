//! Topic patterns and filters.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use regex::{Regex, RegexBuilder};

/// One pattern: an exact name, a glob (`orders-*`), or `regex:…` which must match the whole name.
#[derive(Debug, Clone)]
pub struct TopicPattern {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact,
    Glob(GlobMatcher),
    Regex(Regex),
}

/// Why a text is not a topic pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is nothing.
    #[error("an empty pattern matches nothing")]
    Empty,
    /// Neither a name that a topic can have nor a glob.
    #[error("no topic can have this name: names have letters, digits, '.', '_' and '-', at most 249 of them")]
    Name,
    /// Not a glob.
    #[error("not a glob: {0}")]
    Glob(String),
    /// Not a regular expression, or one that grows too large.
    #[error("not a regular expression: {0}")]
    Regex(String),
}

/// Compiled regular expressions may not grow beyond this; patterns come from a file, and memory is limited.
const REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Kafka's own limit.
const TOPIC_NAME_MAX: usize = 249;

impl TopicPattern {
    /// A name as it is; for names known to be good, as those of a cluster.
    pub fn exact(name: &str) -> Self {
        Self {
            text: name.to_owned(),
            kind: Kind::Exact,
        }
    }

    /// Reads `name`, `glob*`, `glob:…` or `regex:…`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let kind = if let Some(expression) = text.strip_prefix("regex:") {
            let anchored = format!("^(?:{expression})$");
            let regex = RegexBuilder::new(&anchored).size_limit(REGEX_BYTES_MAX).build();
            // The library draws the expression over several lines; its last line is the cause.
            Kind::Regex(regex.map_err(|error| PatternError::Regex(last_line(&error.to_string())))?)
        } else if let Some(glob) = text.strip_prefix("glob:") {
            Kind::Glob(compile_glob(glob)?)
        } else if text.contains(['*', '?', '[', '{']) {
            Kind::Glob(compile_glob(text)?)
        } else if is_topic_name(text) {
            Kind::Exact
        } else {
            return Err(PatternError::Name);
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
        })
    }

    /// Whether a topic of this name is meant.
    pub fn matches(&self, topic: &str) -> bool {
        match &self.kind {
            Kind::Exact => self.text == topic,
            Kind::Glob(glob) => glob.is_match(topic),
            Kind::Regex(regex) => regex.is_match(topic),
        }
    }

    /// The name, if the pattern is one; what is named and missing can then be reported.
    pub fn exact_name(&self) -> Option<&str> {
        matches!(self.kind, Kind::Exact).then_some(self.text.as_str())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn compile_glob(glob: &str) -> Result<GlobMatcher, PatternError> {
    let glob = GlobBuilder::new(glob)
        .literal_separator(false)
        .backslash_escape(true)
        .build();
    Ok(glob
        .map_err(|error| PatternError::Glob(error.kind().to_string()))?
        .compile_matcher())
}

fn last_line(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

/// Whether Kafka would accept it as the name of a topic.
pub(crate) fn is_topic_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TOPIC_NAME_MAX
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        // The text decides the kind and the compiled form.
        self.text == other.text
    }
}

impl Eq for TopicPattern {}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for TopicPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

/// Which topics: those that some `include` matches (all, if there is none) and no `exclude`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicFilter {
    /// Empty stands for all.
    pub include: Vec<TopicPattern>,
    /// Wins over `include`.
    pub exclude: Vec<TopicPattern>,
}

impl TopicFilter {
    /// Puts the two lists together.
    pub fn new(include: Vec<TopicPattern>, exclude: Vec<TopicPattern>) -> Self {
        Self { include, exclude }
    }

    /// Whether the topic is meant.
    pub fn matches(&self, topic: &str) -> bool {
        let included = self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(topic));
        included && !self.exclude.iter().any(|pattern| pattern.matches(topic))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        TopicPattern::parse(pattern).unwrap().matches(topic)
    }

    #[test]
    fn names_globs_and_expressions_mean_whole_names() {
        assert!(matches("orders", "orders") && !matches("orders", "orders-eu"));
        assert!(matches("orders-*", "orders-eu") && !matches("orders-*", "my-orders-eu"));
        assert!(matches("*", "a.b-c") && matches("a.?", "a.b") && matches("{a,b}[0-9]", "b7"));
        assert!(matches("glob:orders", "orders"));
        assert!(matches("regex:a|b", "a") && !matches("regex:a|b", "ab"));
        assert!(matches("regex:^orders$", "orders"));
    }

    #[test]
    fn the_name_of_an_exact_pattern_can_be_asked_for() {
        assert_eq!(
            TopicPattern::parse("orders").unwrap().exact_name(),
            Some("orders")
        );
        assert_eq!(TopicPattern::parse("orders*").unwrap().exact_name(), None);
    }

    #[test]
    fn what_can_match_no_topic_is_refused() {
        assert_eq!(TopicPattern::parse(" "), Err(PatternError::Empty));
        assert_eq!(TopicPattern::parse("a b"), Err(PatternError::Name));
        assert_eq!(TopicPattern::parse(&"a".repeat(250)), Err(PatternError::Name));
        assert!(matches!(
            TopicPattern::parse("regex:("),
            Err(PatternError::Regex(_))
        ));
        assert!(matches!(TopicPattern::parse("a["), Err(PatternError::Glob(_))));
        assert!(matches!(
            TopicPattern::parse("regex:(\\w{999}){999}"),
            Err(PatternError::Regex(_))
        ));
    }

    #[test]
    fn exclusion_wins_and_no_inclusion_means_all() {
        let pattern = |text: &str| TopicPattern::parse(text).unwrap();
        assert!(TopicFilter::default().matches("anything"));
        let filter = TopicFilter::new(vec![pattern("orders*")], vec![pattern("*-test")]);
        assert!(filter.matches("orders-eu") && !filter.matches("orders-test") && !filter.matches("payments"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(pattern in "\\PC*", topic in "\\PC*") {
            if let Ok(pattern) = TopicPattern::parse(&pattern) {
                let _ = pattern.matches(&topic);
            }
        }

        #[test]
        fn a_name_is_a_pattern_that_matches_itself(name in "[a-zA-Z0-9._-]{3,249}") {
            prop_assert!(TopicPattern::parse(&name).unwrap().matches(&name));
        }
    }
}
