//! Credentials: in place, from a variable, or in a file.

use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::{Section, interpolate};
use crate::secret::Secret;
use crate::security::Credential;

impl Section<'_> {
    /// A credential, in place or in the file that `file_key` names. Its value is never shown.
    pub(crate) fn secret(&mut self, key: &'static str, file_key: &'static str) -> Option<Secret> {
        self.secret_with_file(key, file_key).map(|(secret, _)| secret)
    }

    /// A credential that is read again from its file, if it is in one, whenever it is used.
    pub(crate) fn credential(&mut self, key: &'static str, file_key: &'static str) -> Option<Credential> {
        let (secret, file) = self.secret_with_file(key, file_key)?;
        Some(file.map_or(Credential::Given(secret), Credential::File))
    }

    fn secret_with_file(
        &mut self,
        key: &'static str,
        file_key: &'static str,
    ) -> Option<(Secret, Option<PathBuf>)> {
        let in_file = self.path(file_key);
        self.asked.push(key);
        let in_place = self.mapping.get(key).cloned();
        let hide = |message: String, hint: &str| self.hidden_problem(key, message, hint);
        match (in_place, in_file) {
            (Some(_), Some(_)) => {
                hide(
                    format!("is given twice, also as {file_key}"),
                    "remove one of the two",
                );
                None
            }
            (Some(Value::String(text)), None) => match interpolate::interpolate(&text, self.reading.env) {
                Ok(text) if text.is_empty() => {
                    hide("is empty".to_owned(), "give it a value, or remove the key");
                    None
                }
                Ok(text) => Some((Secret::new(text), None)),
                Err(error) => {
                    hide(error.to_string(), error.hint());
                    None
                }
            },
            (Some(_), None) => {
                hide(
                    "must be text".to_owned(),
                    "put it in quotes, or name a variable as ${VAR}",
                );
                None
            }
            (None, Some(file)) => Some((self.secret_from(file_key, &file)?, Some(file))),
            (None, None) => None,
        }
    }

    fn secret_from(&self, file_key: &str, file: &Path) -> Option<Secret> {
        match self.reading.env.read_file(file) {
            // Editors end files with a line break, credentials do not.
            Ok(text) if !text.trim_end_matches(['\r', '\n']).is_empty() => {
                Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
            Ok(_) => {
                self.problem(file_key, "the file is empty", "write the credential into it");
                None
            }
            Err(error) => {
                self.problem(
                    file_key,
                    format!("cannot be read: {error}"),
                    "name a file that this user may read",
                );
                None
            }
        }
    }
}
