//! Reading one mapping of the file, noticing every key.
//!
//! A [`Section`] is asked for each key that may be in it. What it was never asked for is an unknown key, and
//! what it was asked for is what "did you mean" chooses from, so that the two cannot drift apart. A problem
//! is noted and reading goes on with `None`, so that one run finds all problems.

use std::cell::RefCell;
use std::path::PathBuf;

use serde_yaml::{Mapping, Value};

use crate::environment::Env;
use crate::problem::Problem;
use crate::security::Kerberos;
use crate::when::{WHEN_HINT, When};

mod interpolate;
mod lists;
mod measures;
mod secrets;
mod similar;

/// What is shared by all sections of one file.
pub(crate) struct Reading<'e> {
    env: &'e dyn Env,
    problems: RefCell<Vec<Problem>>,
    /// Every key that was asked for, with its path without indices: the schema as far as this file has sections.
    #[cfg(test)]
    pub(crate) schema: RefCell<std::collections::BTreeSet<String>>,
}

impl<'e> Reading<'e> {
    pub(crate) fn new(env: &'e dyn Env) -> Self {
        Self {
            env,
            problems: RefCell::new(Vec::new()),
            #[cfg(test)]
            schema: RefCell::default(),
        }
    }

    pub(crate) fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// One mapping of the file.
pub(crate) struct Section<'r> {
    reading: &'r Reading<'r>,
    path: String,
    mapping: Mapping,
    asked: Vec<&'static str>,
}

impl<'r> Section<'r> {
    pub(crate) fn new(reading: &'r Reading<'r>, path: String, mapping: Mapping) -> Self {
        Self {
            reading,
            path,
            mapping,
            asked: Vec::new(),
        }
    }

    /// The full path of a key.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes a problem with a key, showing what stands there.
    pub(crate) fn problem(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        let value = self.mapping.get(key).and_then(shown);
        self.reading.note(Problem {
            key: self.key(key),
            value,
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// The same without what stands there, which may be a credential or belong to one.
    pub(crate) fn hidden_problem(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.reading.note(Problem {
            key: self.key(key),
            value: None,
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// Whether the key is there with a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.mapping.get(key).is_some_and(|value| !value.is_null())
    }

    fn ask(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.mapping.get(key).cloned()
    }

    /// A mapping within; `key:` with nothing behind it counts as absent, as when all below is commented out.
    pub(crate) fn section(&mut self, key: &'static str) -> Option<Section<'r>> {
        match self.ask(key)? {
            Value::Null => None,
            Value::Mapping(mapping) => Some(Section::new(self.reading, self.key(key), mapping)),
            _ => {
                self.problem(
                    key,
                    "must be a mapping",
                    format!("write `{key}:` and its keys indented below"),
                );
                None
            }
        }
    }

    /// A list of mappings.
    pub(crate) fn sections(&mut self, key: &'static str) -> Vec<Section<'r>> {
        let items = match self.ask(key) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Sequence(items)) => items,
            Some(_) => {
                self.problem(key, "must be a list", "begin each item with `- `");
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.key(key));
            match item {
                Value::Mapping(mapping) => sections.push(Section::new(self.reading, path, mapping)),
                _ => self.reading.note(Problem {
                    key: path,
                    value: None,
                    message: "must be a mapping".to_owned(),
                    hint: "begin the item with `- name: …`".to_owned(),
                }),
            }
        }
        sections
    }

    /// Any scalar as text, with variables filled in.
    fn scalar(&mut self, key: &'static str) -> Option<String> {
        match self.ask(key)? {
            Value::Null => {
                self.problem(
                    key,
                    "has no value",
                    "give it one, or remove the key for the default",
                );
                None
            }
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::String(text) => self.interpolated(key, &text),
            _ => {
                self.problem(key, "must be a single value", "write it on the line of the key");
                None
            }
        }
    }

    fn interpolated(&self, key: &str, text: &str) -> Option<String> {
        match interpolate::interpolate(text, self.reading.env) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problem(key, error.to_string(), error.hint());
                None
            }
        }
    }

    /// A text that is not empty. A number is refused, since YAML may have changed it (`1e3` is `1000.0`).
    pub(crate) fn text(&mut self, key: &'static str) -> Option<String> {
        if matches!(self.mapping.get(key), Some(Value::Number(_) | Value::Bool(_))) {
            self.asked.push(key);
            self.problem(
                key,
                "must be text, but YAML reads it as something else",
                "put it in quotes",
            );
            return None;
        }
        let text = self.scalar(key)?;
        if text.trim().is_empty() {
            self.problem(
                key,
                "is empty",
                "give it a value, or remove the key for the default",
            );
            return None;
        }
        Some(text)
    }

    /// Something with a parser; the parser's error is the message.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        hint: &str,
    ) -> Option<T> {
        let text = self.scalar(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, error.to_string(), hint);
                None
            }
        }
    }

    /// A moment in time.
    pub(crate) fn when(&mut self, key: &'static str) -> Option<When> {
        self.parsed(key, When::parse, WHEN_HINT)
    }

    pub(crate) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A file that can be read now, and will be read again when it is used.
    pub(crate) fn readable_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        match self.reading.env.read_file(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                let message = format!("cannot be read: {error}");
                self.problem(key, message, "name a PEM file that this user may read");
                None
            }
        }
    }

    /// The same for a file that is not text.
    pub(crate) fn readable_bytes(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        match self.reading.env.read_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::InvalidData => {
                let message = format!("cannot be read: {error}");
                self.problem(key, message, "name a file that this user may read");
                None
            }
            _ => Some(path),
        }
    }

    /// Where this system describes Kerberos: the files of `KRB5_CONFIG`, else the usual one.
    pub(crate) fn krb5_configuration(&self) -> Vec<PathBuf> {
        let paths = self.reading.env.var("KRB5_CONFIG");
        let paths = paths.as_deref().unwrap_or_default().split(':');
        let paths: Vec<_> = paths.filter(|path| !path.is_empty()).map(PathBuf::from).collect();
        match paths.is_empty() {
            true => vec![PathBuf::from(Kerberos::DEFAULT_CONFIGURATION)],
            false => paths,
        }
    }

    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.scalar(key)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.problem(
                    key,
                    "must be true or false",
                    "write `true` or `false` without quotes",
                );
                None
            }
        }
    }

    /// A whole number within limits.
    pub(crate) fn integer(&mut self, key: &'static str, min: i64, max: i64) -> Option<i64> {
        let text = self.scalar(key)?;
        match text.trim().parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                let hint = format!("write a whole number from {min} to {max}");
                self.problem(key, "is not a whole number within its limits", hint);
                None
            }
        }
    }

    /// An integer of a smaller type, within limits.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self, key: &'static str, min: i64, max: i64) -> Option<T> {
        T::try_from(self.integer(key, min, max)?).ok()
    }

    /// One of several words. Those in `not_yet` are known, but nothing honours them so far.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        not_yet: &[&str],
    ) -> Option<T> {
        let names = choices
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ");
        let hint = match choices.len() {
            1 => format!("only {names} is so far"),
            _ => format!("choose from {names}"),
        };
        self.choice_with_hint(key, choices, not_yet, &hint)
    }

    /// The same with another way out.
    pub(crate) fn choice_with_hint<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        not_yet: &[&str],
        hint: &str,
    ) -> Option<T> {
        let text = self.scalar(key)?;
        let same = |name: &&str| name.eq_ignore_ascii_case(text.trim());
        if let Some((_, value)) = choices.iter().find(|(name, _)| same(name)) {
            return Some(*value);
        }
        let message = if not_yet.iter().any(same) {
            "is not supported yet"
        } else {
            "is not one of the choices"
        };
        self.problem(key, message, hint);
        None
    }

    /// Keys that are planned, but that nothing honours so far.
    pub(crate) fn not_yet(&mut self, keys: &[&'static str]) {
        for key in keys {
            // Not among those asked for: "did you mean" must not propose them.
            if self.mapping.remove(*key).is_some() {
                self.problem(key, "is not supported yet", "remove the key");
            }
        }
    }

    /// A key that other programs have, and that is refused here for a reason of its own.
    pub(crate) fn refused(&mut self, key: &str, message: &str, hint: &str) {
        if self.mapping.remove(key).is_some() {
            self.problem(key, message, hint);
        }
    }

    /// Keys by the names that other programs have for them, each with the name it has here.
    pub(crate) fn elsewhere(&mut self, keys: &[(&str, &str)]) {
        for (key, here) in keys {
            self.refused(key, "has another name here", &format!("write it as {here}"));
        }
    }

    /// Everything was asked for: what is left is unknown.
    pub(crate) fn finish(self) {
        #[cfg(test)]
        self.reading.schema.borrow_mut().extend(
            self.asked
                .iter()
                .map(|key| self.key(key).replace(['[', ']', '0'], "")),
        );
        for name in self.mapping.keys() {
            let name = plain(name).unwrap_or_else(|| "(a key that is not text)".to_owned());
            if self.asked.contains(&name.as_str()) {
                continue;
            }
            let hint = match similar::most_similar(&name, &self.asked) {
                Some(known) => format!("did you mean {known}?"),
                None => {
                    let mut known = self.asked.clone();
                    known.sort_unstable();
                    format!("known here: {}", known.join(", "))
                }
            };
            // Without its value: a misspelt key may hold a credential.
            let key = self.key(&name);
            self.reading.note(Problem {
                key,
                value: None,
                message: "unknown key".to_owned(),
                hint,
            });
        }
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Longer values are cut in messages.
const SHOWN_CHARS_MAX: usize = 80;

/// A value as it is shown in a problem: as written, before variables are filled in.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.chars().count() > SHOWN_CHARS_MAX => Some(format!(
            "{:?}…",
            text.chars().take(SHOWN_CHARS_MAX).collect::<String>()
        )),
        Value::String(text) => Some(format!("{text:?}")),
        other => plain(other),
    }
}
