//! `${VAR}` and `${VAR:-default}` in texts; `$${` stands for `${` itself.
//!
//! It happens in single values after YAML was read, so that no content of a variable can change the structure
//! of the file. A `$` elsewhere is itself: regular expressions end with it.

use crate::environment::Env;

/// Why variables cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InterpolateError {
    /// There is no such variable.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// `${` without a name and `}`.
    #[error("has ${{ without a variable name and }}")]
    Form,
}

impl InterpolateError {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::NotSet(_) => "set it, or give a default as ${VAR:-default}",
            Self::Form => "write ${VAR}, or $${ for the two characters themselves",
        }
    }
}

pub(super) fn interpolate(text: &str, env: &dyn Env) -> Result<String, InterpolateError> {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(escaped) = before.strip_suffix('$') {
            output.push_str(escaped);
            output.push_str("${");
            rest = after;
            continue;
        }
        output.push_str(before);
        let (expression, after) = after.split_once('}').ok_or(InterpolateError::Form)?;
        let (name, default) = match expression.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (expression, None),
        };
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err(InterpolateError::Form);
        }
        match (
            env.var(name)
                .filter(|value| default.is_none() || !value.is_empty()),
            default,
        ) {
            (Some(value), _) => output.push_str(&value),
            (None, Some(default)) => output.push_str(default),
            (None, None) => return Err(InterpolateError::NotSet(name.to_owned())),
        }
        rest = after;
    }
    output.push_str(rest);
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;
    use proptest::prelude::*;

    struct One;

    impl Env for One {
        fn var(&self, name: &str) -> Option<String> {
            match name {
                "NAME" => Some("va${l}ue".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }
        }

        fn read_file(&self, _path: &Path) -> io::Result<String> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn filled(text: &str) -> Result<String, InterpolateError> {
        interpolate(text, &One)
    }

    #[test]
    fn variables_are_filled_in_once_and_dollars_elsewhere_stay() {
        assert_eq!(filled("a ${NAME} b"), Ok("a va${l}ue b".to_owned()));
        assert_eq!(filled("regex:^x$"), Ok("regex:^x$".to_owned()));
        assert_eq!(filled("$${NAME}"), Ok("${NAME}".to_owned()));
    }

    #[test]
    fn a_default_serves_for_what_is_missing_or_empty() {
        assert_eq!(filled("${NONE:-x:-y}"), Ok("x:-y".to_owned()));
        assert_eq!(filled("${EMPTY:-x}${EMPTY}"), Ok("x".to_owned()));
    }

    #[test]
    fn missing_variables_and_broken_forms_are_errors() {
        assert_eq!(
            filled("${NONE}"),
            Err(InterpolateError::NotSet("NONE".to_owned()))
        );
        for text in ["${", "${}", "${a b}", "${NAME"] {
            assert_eq!(filled(text), Err(InterpolateError::Form), "{text}");
        }
    }

    proptest! {
        #[test]
        fn texts_without_the_mark_stay_as_they_are(text in "[^{]*") {
            prop_assert_eq!(filled(&text), Ok(text));
        }
    }
}
