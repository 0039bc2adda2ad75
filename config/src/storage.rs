//! Where the archive lies.

use std::path::PathBuf;
use std::time::Duration;

use crate::problem::Problem;
use crate::reading::{check_endpoint, clean_prefix, url_in_path};
use crate::secret::Secret;

/// The kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Amazon S3, and what speaks like it.
    S3,
    /// S3 with path style: Ceph, MinIO, versitygw and others.
    Ceph,
    /// A directory.
    Filesystem,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Backend {
    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Ceph => "ceph",
            Self::Filesystem => "filesystem",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
        }
    }
}

/// Where the archive lies, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The kind of store.
    pub backend: Backend,
    /// Bucket, or container on Azure. Not for filesystems.
    pub bucket: Option<String>,
    /// What every key begins with; without slashes at either end; may be empty.
    pub prefix: String,
    /// The server's URL, when it is not the provider's own.
    pub endpoint: Option<String>,
    /// The region; S3-compatible servers mostly ignore it.
    pub region: Option<String>,
    /// Access key id (account name on Azure). Without it the provider's ordinary chain of credentials is used.
    pub access_key: Option<Secret>,
    /// Secret access key (account key on Azure).
    pub secret_key: Option<Secret>,
    /// Service account file of Google Cloud.
    pub service_account_file: Option<PathBuf>,
    /// The directory, for filesystems.
    pub path: Option<PathBuf>,
    /// Declares that one process alone writes this backup, which makes stores without conditional puts usable.
    pub single_writer: bool,
    /// Allows plaintext HTTP to an endpoint that is not loopback.
    pub allow_http: bool,
    /// How failed requests are repeated.
    pub retry: Retry,
    /// How long one request may take.
    pub request_timeout: Duration,
}

impl Storage {
    /// The archive of a quick start.
    pub const DEFAULT_PATH: &'static str = "./teeline-archive";
    /// Longer than a part of 8 MiB takes on a slow line (at 100 KiB/s: 82 s).
    pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

    /// A store of that kind with everything else at its default.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            bucket: None,
            prefix: String::new(),
            endpoint: None,
            region: None,
            access_key: None,
            secret_key: None,
            service_account_file: None,
            path: None,
            single_writer: false,
            allow_http: false,
            retry: Retry::default(),
            request_timeout: Self::DEFAULT_REQUEST_TIMEOUT,
        }
    }

    /// A directory as archive.
    pub fn filesystem(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::new(Backend::Filesystem)
        }
    }

    /// The address for people: no credentials, no server.
    pub fn address(&self) -> String {
        let bucket = self.bucket.as_deref().unwrap_or_default();
        let root = match self.backend {
            Backend::S3 | Backend::Ceph => format!("s3://{bucket}"),
            Backend::Gcs => format!("gs://{bucket}"),
            Backend::Azure => format!("az://{bucket}"),
            Backend::Filesystem => match &self.path {
                Some(path) => path.display().to_string(),
                None => Self::DEFAULT_PATH.to_owned(),
            },
        };
        if self.prefix.is_empty() {
            root
        } else {
            format!("{}/{}", root.trim_end_matches('/'), self.prefix)
        }
    }

    /// From the text of `--archive`: a path, `file://…`, `s3://bucket/prefix`, `gs://…`, `az://…`. A store may be
    /// described further by `?endpoint=…&region=…&allow_http=true&single_writer=true`; credentials come from the
    /// environment, never from a command line, which everybody on the host can read.
    pub fn from_url(text: &str) -> Result<Self, Problem> {
        let wrong = |message: &str, hint: &str| Problem {
            key: "--archive".to_owned(),
            value: Some(format!("{text:?}")),
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return match (text.trim().is_empty(), url_in_path(text)) {
                (true, _) => Err(wrong("is empty", URL_HINT)),
                (false, Some(message)) => Err(wrong(
                    &message,
                    "write ./ before a directory with a colon in its name",
                )),
                (false, None) => Ok(Self::filesystem(text)),
            };
        };
        let backend = match scheme {
            "file" if rest.starts_with('/') => return Ok(Self::filesystem(rest)),
            "file" => return Err(wrong("names a host", "write file:///path, or just the path")),
            "s3" | "s3a" => Backend::S3,
            "ceph" => Backend::Ceph,
            "gs" | "gcs" => Backend::Gcs,
            "az" | "azure" | "abfs" => Backend::Azure,
            _ => return Err(wrong("has a scheme that is not known", URL_HINT)),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() || bucket.contains(['@', ':']) {
            return Err(wrong(
                "names no bucket",
                "write it as s3://bucket/prefix; a server of your own goes into ?endpoint=https://…",
            ));
        }
        let prefix = clean_prefix(prefix)
            .map_err(|message| wrong(message, "write it as s3://bucket/backups/kafka"))?;
        let mut storage = Self {
            bucket: Some(bucket.to_owned()),
            prefix,
            ..Self::new(backend)
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("endpoint", url)) => storage.endpoint = Some(url.to_owned()),
                Some(("region", region)) => storage.region = Some(region.to_owned()),
                Some(("allow_http", "true")) => storage.allow_http = true,
                Some(("single_writer", "true")) => storage.single_writer = true,
                _ => {
                    return Err(wrong(
                        "has a parameter that is not known",
                        "known are endpoint, region, allow_http=true, single_writer=true",
                    ));
                }
            }
        }
        if let Some(endpoint) = &storage.endpoint {
            check_endpoint(endpoint, storage.allow_http)
                .map_err(|(message, hint)| wrong(&format!("its endpoint {message}"), hint))?;
        }
        Ok(storage)
    }
}

const URL_HINT: &str =
    "write a path, file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";

/// How failed requests to the store are repeated: exponentially, with jitter, up to a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub max_retries: u32,
    /// The first pause.
    pub backoff_initial: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// From the first attempt to giving up.
    pub timeout: Duration,
}

impl Retry {
    /// With pauses doubling from 100 ms to 10 s this spans about a minute; callers go on beyond it as they see fit.
    pub const DEFAULT_MAX_RETRIES: u32 = 10;
    /// About the round trip to a far region.
    pub const DEFAULT_BACKOFF_INITIAL: Duration = Duration::from_millis(100);
    /// Long enough to relieve a throttling store, short enough to notice that it is back.
    pub const DEFAULT_BACKOFF_MAX: Duration = Duration::from_secs(10);
    /// Beyond it the caller must know, say so in its health, and decide.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: Self::DEFAULT_MAX_RETRIES,
            backoff_initial: Self::DEFAULT_BACKOFF_INITIAL,
            backoff_max: Self::DEFAULT_BACKOFF_MAX,
            timeout: Self::DEFAULT_TIMEOUT,
        }
    }
}
