//! `krb5.conf`: the realms and their KDCs, as far as Teeline reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::crypto::Encryption;
use super::{KerberosError, read_file, unusable};

/// What the files say. Of several values for one thing the first counts.
#[derive(Debug, Default)]
pub(super) struct Realms {
    default_realm: Option<String>,
    /// Host and port, by realm, in the order of the file.
    kdcs: BTreeMap<String, Vec<(String, u16)>>,
    /// Realms by host, or by domain with a dot before it.
    domains: BTreeMap<String, String>,
    permitted: Option<Vec<Encryption>>,
    /// Where all this stands, for messages.
    files: Vec<PathBuf>,
}

impl Realms {
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, KerberosError> {
        let mut realms = Self {
            files: files.to_vec(),
            ..Self::default()
        };
        let mut reading = Reading::default();
        let mut there = false;
        for file in files {
            if file.exists() || files.len() == 1 {
                reading.file(file, 0)?;
                there = true;
            }
        }
        if !there {
            let message = format!(
                "{} does not exist (hint: set krb5_conf)",
                realms.where_it_stands()
            );
            return Err(KerberosError::NotDescribed(message));
        }
        for (path, value) in reading.relations {
            realms.take(&path, &value);
        }
        Ok(realms)
    }

    fn take(&mut self, path: &[String], value: &str) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["libdefaults", "default_realm"] => {
                self.default_realm.get_or_insert_with(|| value.to_owned());
            }
            ["libdefaults", "permitted_enctypes"] => {
                let names = value.split([',', ' ', '\t']).filter(|name| !name.is_empty());
                let encryptions = names.flat_map(Encryption::of_name).collect();
                self.permitted.get_or_insert(encryptions);
            }
            ["realms", realm, "kdc"] => {
                let kdcs = self.kdcs.entry((*realm).to_owned()).or_default();
                kdcs.extend(address(value).filter(|_| kdcs.len() < KDCS_MAX));
            }
            ["domain_realm", domain] => {
                let domain = domain.to_ascii_lowercase();
                self.domains.entry(domain).or_insert_with(|| value.to_owned());
            }
            _ => {}
        }
    }

    fn where_it_stands(&self) -> String {
        let files: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        files.join(", ")
    }

    pub(super) fn default_realm(&self) -> Option<&str> {
        self.default_realm.as_deref()
    }

    /// Those of ours that may be used.
    pub(super) fn encryptions(&self) -> Vec<Encryption> {
        let permitted = |encryption: &Encryption| match &self.permitted {
            Some(permitted) => permitted.contains(encryption),
            None => true,
        };
        Encryption::ALL.into_iter().filter(permitted).collect()
    }

    pub(super) fn kdcs(&self, realm: &str) -> Result<&[(String, u16)], KerberosError> {
        match self.kdcs.get(realm) {
            Some(kdcs) if !kdcs.is_empty() => Ok(kdcs),
            _ => Err(KerberosError::NotDescribed(format!(
                "{} names no KDC of {realm} (hint: add kdc = HOST:88 to {realm} in [realms]; DNS is not asked)",
                self.where_it_stands()
            ))),
        }
    }

    /// The realm of a host, if the files say so: by its name, else by the nearest domain above it.
    pub(super) fn realm_of(&self, host: &str) -> Option<&str> {
        let mut name = host;
        if let Some(realm) = self.domains.get(name) {
            return Some(realm);
        }
        while let Some(dot) = name.find('.') {
            let (_, domain) = name.split_at_checked(dot)?;
            let bare = domain.strip_prefix('.')?;
            if let Some(realm) = self.domains.get(domain).or_else(|| self.domains.get(bare)) {
                return Some(realm);
            }
            name = bare;
        }
        None
    }
}

/// `host`, `host:port`, `[v6]:port`, also with `tcp/` before it. What is spoken otherwise is left out.
fn address(text: &str) -> Option<(String, u16)> {
    let text = text.strip_prefix("tcp/").unwrap_or(text);
    if text.is_empty() || text.contains('/') {
        return None;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None => KDC_PORT,
        };
        return Some((host.to_owned(), port));
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host.to_owned(), port.parse().ok()?)),
        _ => Some((text.to_owned(), KDC_PORT)),
    }
}

/// Values with the names that lead to them.
#[derive(Default)]
struct Reading {
    relations: Vec<(Vec<String>, String)>,
    files: usize,
}

impl Reading {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), KerberosError> {
        self.files += 1;
        if depth > INCLUDES_DEEP || self.files > FILES_MAX {
            return Err(unusable(path, "includes too many files"));
        }
        let content = read_file(path)?;
        let text = String::from_utf8_lossy(&content);
        let mut section = None;
        let mut names: Vec<String> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if names.is_empty() && self.directive(path, line, depth)? {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                section = rest.split_once(']').map(|(name, _)| name.trim().to_owned());
                names.clear();
            } else if line.starts_with('}') {
                names.pop();
            } else if let Some((name, value)) = line.split_once('=') {
                let name = name.trim().trim_end_matches('*').to_owned();
                let value = value.trim();
                if value.starts_with('{') {
                    names.push(name);
                } else if let Some(section) = &section {
                    let mut whole = vec![section.clone()];
                    whole.extend(names.iter().cloned());
                    whole.push(name);
                    self.relations.push((whole, value.trim_matches('"').to_owned()));
                }
            } else {
                let reason = format!("line {} is neither a section nor a value", index + 1);
                return Err(unusable(path, reason));
            }
            if names.len() > NESTED_MAX {
                return Err(unusable(path, format!("line {} is nested too deeply", index + 1)));
            }
        }
        Ok(())
    }

    /// Whether the line was a directive, which has been followed.
    fn directive(&mut self, path: &Path, line: &str, depth: usize) -> Result<bool, KerberosError> {
        let (word, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = Path::new(argument.trim());
        match word {
            "include" => self.file(argument, depth + 1)?,
            "includedir" => {
                let entries = std::fs::read_dir(argument).map_err(|source| KerberosError::File {
                    path: argument.to_owned(),
                    source: source.into(),
                })?;
                let mut files: Vec<_> = entries
                    .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                    .filter(|file| is_included(file))
                    .collect();
                files.sort();
                for file in files {
                    self.file(&file, depth + 1)?;
                }
            }
            // Code for MIT's own library.
            "module" => {}
            "" => return Err(unusable(path, "is not krb5.conf")),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Names of letters, digits, `-` and `_`, or that end in `.conf`: not what editors and packages leave behind.
fn is_included(file: &Path) -> bool {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let named = name.chars().all(plain) || (name.ends_with(".conf") && !name.starts_with('.'));
    named && file.is_file()
}

const KDC_PORT: u16 = 88;
/// More are not asked: that would take minutes when none answers.
const KDCS_MAX: usize = 8;
const FILES_MAX: usize = 256;
const INCLUDES_DEEP: usize = 8;
const NESTED_MAX: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_file_is_read_with_those_it_includes() {
        let directory = std::env::temp_dir().join(format!("teeline-krb5-{}", std::process::id()));
        let parts = directory.join("parts");
        std::fs::create_dir_all(&parts).unwrap();
        let path = directory.join("krb5.conf");
        let text = format!(
            "# ours\nincludedir {}\n\n[libdefaults]\n  default_realm = EXAMPLE.COM\n\
             permitted_enctypes = aes256-cts-hmac-sha1-96 arcfour-hmac\n\n\
             [realms]\n EXAMPLE.COM = {{\n  kdc = one.example.com\n  kdc = tcp/two:1088\n kdc = [::1]:89\n  \
             kdc = https://proxy/KdcProxy\n  v4_instance_convert = {{\n   a = b\n  }}\n  admin_server = one\n }}\n\
             [domain_realm]\n .Example.com = EXAMPLE.COM\n odd.example.com = ODD\n",
            parts.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::write(
            parts.join("other"),
            "[realms]\nOTHER = {\nkdc = three\n}\n[libdefaults]\ndefault_realm=FIRST\n",
        )
        .unwrap();
        std::fs::write(parts.join("other.rpmsave"), "not read").unwrap();
        let realms = Realms::read(std::slice::from_ref(&path)).unwrap();
        assert_eq!(realms.default_realm(), Some("FIRST"));
        let kdcs: Vec<String> = realms
            .kdcs("EXAMPLE.COM")
            .unwrap()
            .iter()
            .map(|(host, port)| format!("{host} {port}"))
            .collect();
        assert_eq!(kdcs, ["one.example.com 88", "two 1088", "::1 89"]);
        assert_eq!(realms.kdcs("OTHER").unwrap().len(), 1);
        let missing = realms.kdcs("NOWHERE").unwrap_err().to_string();
        assert!(missing.contains("names no KDC of NOWHERE (hint"), "{missing}");
        assert_eq!(realms.realm_of("a.b.example.com"), Some("EXAMPLE.COM"));
        assert_eq!(realms.realm_of("odd.example.com"), Some("ODD"));
        assert_eq!(realms.realm_of("localhost"), None);
        assert_eq!(realms.encryptions(), [Encryption::Aes256Sha1]);
        std::fs::write(&path, format!("include {}", path.display())).unwrap();
        let endless = Realms::read(std::slice::from_ref(&path)).unwrap_err();
        assert!(endless.to_string().contains("too many files"), "{endless}");
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(
            Realms::read(&[path.clone(), path])
                .unwrap_err()
                .to_string()
                .contains("does not exist")
        );
    }
}
