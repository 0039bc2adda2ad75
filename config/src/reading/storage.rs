//! Reads where the archive lies.

use crate::endpoint::host_is_loopback;
use crate::section::Section;
use crate::storage::{Backend, Retry, Storage};

use super::endpoint::HOUR_MS;

/// `None` when the backend is missing or wrong, which is then a problem already noted.
pub(super) fn storage(mut section: Section<'_>) -> Option<Storage> {
    let backend = backend(&mut section);
    section.not_yet(&[
        "encryption",
        "session_token",
        "sse",
        "storage_class",
        "object_lock",
    ]);
    let access_key = section.secret("access_key", "access_key_file");
    let secret_key = section.secret("secret_key", "secret_key_file");
    let one_of_two = [
        ("access_key", &access_key, &secret_key),
        ("secret_key", &secret_key, &access_key),
    ];
    for (missing, own, other) in one_of_two {
        let noted = section.has(missing) || section.has(&format!("{missing}_file"));
        if own.is_none() && other.is_some() && !noted {
            let hint = "give both, or neither to use the provider's own chain of credentials";
            section.problem(
                missing,
                "is missing: one of the two keys alone is of no use",
                hint,
            );
        }
    }
    let read = Storage {
        backend: backend.unwrap_or(Backend::Filesystem),
        bucket: section.text("bucket"),
        prefix: prefix(&mut section),
        endpoint: section.text("endpoint"),
        region: section.text("region"),
        access_key,
        secret_key,
        service_account_file: section.path("service_account_file"),
        path: section.path("path"),
        single_writer: section.boolean("single_writer").unwrap_or(false),
        allow_http: section.boolean("allow_http").unwrap_or(false),
        retry: retry(section.section("retry")),
        request_timeout: section
            .duration("request_timeout", "request_timeout_ms", 100, HOUR_MS)
            .unwrap_or(Storage::DEFAULT_REQUEST_TIMEOUT),
    };
    if backend.is_some() {
        check(&section, &read);
    }
    section.finish();
    backend.map(|_| read)
}

fn backend(section: &mut Section<'_>) -> Option<Backend> {
    let all = [
        Backend::S3,
        Backend::Ceph,
        Backend::Filesystem,
        Backend::Gcs,
        Backend::Azure,
    ];
    let choices = all.map(|backend| (backend.as_str(), backend));
    if !section.has("backend") {
        let _ = section.text("backend");
        section.problem(
            "backend",
            "is missing",
            "choose from s3, ceph, filesystem, gcs, azure",
        );
        return None;
    }
    section.choice("backend", &choices, &[])
}

fn prefix(section: &mut Section<'_>) -> String {
    // "No prefix" may be written as an empty text.
    let Some(text) = section.parsed("prefix", |text| Ok::<_, String>(text.to_owned()), "") else {
        return String::new();
    };
    match clean_prefix(&text) {
        Ok(prefix) => prefix,
        Err(message) => {
            section.problem("prefix", message, "write it as `backups/kafka`");
            String::new()
        }
    }
}

/// Takes slashes off both ends, and refuses what would not be the same key everywhere.
pub(crate) fn clean_prefix(text: &str) -> Result<String, &'static str> {
    let prefix = text.trim_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '=' | '+' | '@');
    let bad_part = |part: &str| part.is_empty() || part == "." || part == "..";
    if !prefix.is_empty() && prefix.split('/').any(bad_part) {
        return Err("has an empty part, '.' or '..'");
    }
    if !prefix.chars().all(plain) {
        return Err("has characters that not every store keeps: use letters, digits and . _ - = + @");
    }
    Ok(prefix.to_owned())
}

/// What each backend needs, and what has no meaning for it.
fn check(section: &Section<'_>, storage: &Storage) {
    let name = storage.backend.as_str();
    let (needed, foreign): (&[&str], &[&str]) = match storage.backend {
        Backend::Filesystem => (
            &["path"],
            &[
                "bucket",
                "endpoint",
                "region",
                "access_key",
                "access_key_file",
                "secret_key",
                "secret_key_file",
                "service_account_file",
                "allow_http",
            ],
        ),
        Backend::S3 => (&["bucket"], &["path", "service_account_file"]),
        Backend::Ceph => (&["bucket", "endpoint"], &["path", "service_account_file"]),
        Backend::Gcs => (
            &["bucket"],
            &[
                "path",
                "region",
                "access_key",
                "access_key_file",
                "secret_key",
                "secret_key_file",
            ],
        ),
        Backend::Azure => (&["bucket"], &["path", "region", "service_account_file"]),
    };
    for key in needed.iter().filter(|key| !section.has(key)) {
        section.problem(key, "is missing", format!("backend {name} needs it"));
    }
    for key in foreign.iter().filter(|key| section.has(key)) {
        section.problem(
            key,
            format!("has no meaning for backend {name}"),
            "remove the key, or correct storage.backend",
        );
    }
    if let Some(message) = storage
        .path
        .as_ref()
        .and_then(|path| url_in_path(&path.to_string_lossy()))
    {
        section.problem(
            "path",
            message,
            "for object storage set storage.backend and storage.bucket",
        );
    }
    if let Some(endpoint) = &storage.endpoint
        && let Err((message, hint)) = check_endpoint(endpoint, storage.allow_http)
    {
        section.problem("endpoint", message, hint);
    }
}

/// A mistyped URL must not become a local directory named `s3:` that looks like success.
pub(crate) fn url_in_path(path: &str) -> Option<String> {
    let (scheme, _) = path.split_once(':')?;
    let scheme_like = scheme.len() > 1
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+');
    scheme_like.then(|| format!("looks like a URL with scheme {scheme:?}, not like a directory"))
}

/// An endpoint must be a URL; plaintext HTTP leaves this machine only when that is said.
pub(crate) fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), (&'static str, &'static str)> {
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return Err(("is not a URL", "write it as https://s3.example.com"));
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return Err((
            "must name a host, and no credentials",
            "write it as https://s3.example.com",
        ));
    }
    match scheme {
        "https" => Ok(()),
        "http" if allow_http || host_is_loopback(host_of(authority)) => Ok(()),
        "http" => Err((
            "is plaintext HTTP to another host: everybody on the way can read the archive",
            "use https, or set storage.allow_http: true",
        )),
        _ => Err(("is neither https nor http", "write it as https://s3.example.com")),
    }
}

fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

fn retry(section: Option<Section<'_>>) -> Retry {
    let default = Retry::default();
    let Some(mut section) = section else {
        return default;
    };
    let max_retries = section.number("max_retries", 0, 1000);
    let initial = section.duration("backoff_initial", "backoff_initial_ms", 1, HOUR_MS);
    let max = section.duration("backoff_max", "backoff_max_ms", 1, HOUR_MS);
    let timeout = section.duration("timeout", "timeout_ms", 1, HOUR_MS);
    if let (Some(initial), Some(max)) = (initial, max)
        && max < initial
    {
        section.problem(
            "backoff_max",
            "is less than backoff_initial",
            "make it at least as long",
        );
    }
    section.finish();
    Retry {
        max_retries: max_retries.unwrap_or(default.max_retries),
        backoff_initial: initial.unwrap_or(default.backoff_initial),
        backoff_max: max.unwrap_or(default.backoff_max),
        timeout: timeout.unwrap_or(default.timeout),
    }
}
