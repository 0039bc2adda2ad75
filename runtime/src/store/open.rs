//! Opening a store from its configuration.

use std::path::Path as FsPath;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use teeline_config::{Backend, HostPort, Secret, Storage};

use super::directories::Directories;
use super::error::{Context, StoreError, StoreErrorKind};
use super::{Inner, Store};

const OPERATION: &str = "open store";

/// Connecting takes two round trips; a store that needs longer is away.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

impl Store {
    /// Opens a store for writing. A directory is created, durably, if it is missing; of other stores nothing is
    /// asked yet: that they answer is shown by [`Store::probe_conditional_put`].
    pub fn open(storage: &Storage) -> Result<Self, StoreError> {
        Self::open_as(storage, true)
    }

    /// Opens a store for reading: a missing directory is an error, not an empty archive.
    pub fn open_existing(storage: &Storage) -> Result<Self, StoreError> {
        Self::open_as(storage, false)
    }

    fn open_as(storage: &Storage, create: bool) -> Result<Self, StoreError> {
        let secrets = [&storage.access_key, &storage.secret_key];
        let secrets: Vec<String> = secrets
            .into_iter()
            .flatten()
            .map(|secret| secret.expose().to_owned())
            .collect();
        let asks_provider = storage.backend != Backend::Filesystem && storage.access_key.is_none();
        let context = Context {
            address: storage.address().into(),
            secrets: secrets.into(),
            asks_provider,
        };
        let prefix = Path::parse(&storage.prefix).map_err(|error| {
            context.custom(
                StoreErrorKind::Invalid,
                OPERATION,
                "",
                &error.to_string(),
                "correct storage.prefix",
            )
        })?;
        let mut directories = None;
        let objects: Arc<dyn ObjectStore> = match storage.backend {
            Backend::Filesystem => {
                let root = storage
                    .path
                    .as_deref()
                    .unwrap_or(FsPath::new(Storage::DEFAULT_PATH));
                if create {
                    directories = Some(Arc::new(Directories::new(root.to_owned())));
                }
                Arc::new(open_directory(root, &context, create)?)
            }
            Backend::S3 | Backend::Ceph => Arc::new(checked(&context, s3_builder(storage).build())?),
            Backend::Gcs => Arc::new(checked(&context, gcs_builder(storage).build())?),
            Backend::Azure => Arc::new(checked(&context, azure_builder(storage).build())?),
        };
        let (retry, single_writer) = (storage.retry.clone(), storage.single_writer);
        Ok(Self {
            inner: Arc::new(Inner {
                objects,
                prefix,
                context,
                retry,
                single_writer,
                directories,
            }),
        })
    }
}

fn checked<T>(context: &Context, built: object_store::Result<T>) -> Result<T, StoreError> {
    built.map_err(|error| {
        let reason = crate::exit::error_chain(&error);
        context.custom(
            StoreErrorKind::Invalid,
            OPERATION,
            "",
            &reason,
            "correct the keys of `storage`",
        )
    })
}

fn open_directory(path: &FsPath, context: &Context, create: bool) -> Result<LocalFileSystem, StoreError> {
    let refuse = |kind, reason: &str, hint: &str| Err(context.custom(kind, OPERATION, "", reason, hint));
    if path.exists() && !path.is_dir() {
        return refuse(
            StoreErrorKind::Invalid,
            "it is not a directory",
            "name a directory",
        );
    }
    if !path.is_dir() && !create {
        return refuse(
            StoreErrorKind::NotFound,
            "there is no such directory",
            "check the path of the archive",
        );
    }
    // Through our own durable steps: the store syncs what it creates, but not the way to the root it is given.
    if create && let Err(error) = crate::fs::create_dir_durable(path) {
        let reason = crate::exit::error_chain(&error);
        return refuse(
            StoreErrorKind::Refused,
            &reason,
            "name a directory that this user may write",
        );
    }
    // Without fsync a put would be "done" with its bytes in the page cache only, and the buffer released.
    Ok(checked(context, LocalFileSystem::new_with_prefix(path))?.with_fsync(true))
}

fn s3_builder(storage: &Storage) -> AmazonS3Builder {
    // From the environment first, so that the provider's ordinary chain (variables, web identity, instance
    // profile) serves whatever the file does not say.
    let mut builder = AmazonS3Builder::from_env()
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_virtual_hosted_style_request(false)
        .with_retry(retry_config(storage));
    if let Some(bucket) = &storage.bucket {
        builder = builder.with_bucket_name(bucket);
    }
    if let Some(endpoint) = &storage.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &storage.region {
        builder = builder.with_region(region);
    } else if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
        builder = builder.with_region("us-east-1"); // what servers without regions expect in signatures
    }
    if let (Some(access_key), Some(secret_key)) = (&storage.access_key, &storage.secret_key) {
        builder = builder
            .with_access_key_id(access_key.expose())
            .with_secret_access_key(secret_key.expose());
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    builder.with_client_options(client_options(storage, endpoint.as_deref()))
}

fn gcs_builder(storage: &Storage) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_retry(retry_config(storage))
        .with_client_options(client_options(storage, storage.endpoint.as_deref()));
    if let Some(bucket) = &storage.bucket {
        builder = builder.with_bucket_name(bucket);
    }
    if let Some(endpoint) = &storage.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(file) = &storage.service_account_file {
        builder = builder.with_service_account_path(file.to_string_lossy());
    }
    builder
}

fn azure_builder(storage: &Storage) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_retry(retry_config(storage))
        .with_client_options(client_options(storage, storage.endpoint.as_deref()));
    if let Some(container) = &storage.bucket {
        builder = builder.with_container_name(container);
    }
    if let Some(endpoint) = &storage.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(account) = &storage.access_key {
        builder = builder.with_account(account.expose());
    }
    if let Some(key) = storage.secret_key.as_ref().map(Secret::expose) {
        builder = builder.with_access_key(key);
    }
    builder
}

fn client_options(storage: &Storage, endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(storage.request_timeout)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(storage.allow_http || endpoint.is_some_and(is_loopback_url))
}

/// Plaintext to this machine itself shows nothing to a network.
fn is_loopback_url(url: &str) -> bool {
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.split('/').next().unwrap_or(rest));
    authority.is_some_and(|authority| {
        let with_port = authority.parse::<HostPort>().ok();
        with_port
            .or_else(|| format!("{authority}:80").parse().ok())
            .is_some_and(|host| host.is_loopback())
    })
}

fn retry_config(storage: &Storage) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: storage.retry.backoff_initial,
            max_backoff: storage.retry.backoff_max,
            base: 2.0,
        },
        max_retries: usize::try_from(storage.retry.max_retries).unwrap_or(usize::MAX),
        retry_timeout: storage.retry.timeout,
    }
}
