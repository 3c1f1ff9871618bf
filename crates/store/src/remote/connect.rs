//! A client for each kind of store, set up from the environment.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::{HttpBuilder, HttpStore};
use object_store::list::PaginatedListStore;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, HeaderValue, ObjectStore, RetryConfig,
};
use reqwest::header::AUTHORIZATION;

use super::super::{Scheme, StoreError, StoreOptions, Url};
use super::explain::Explain;

/// Longest wait between two tries.
const MOST_BACKOFF: Duration = Duration::from_secs(15);
/// Credentials of a request may run out; the crate asks to stay below five minutes.
const MOST_RETRYING: Duration = Duration::from_mins(3);

/// A client of one bucket, container or web server.
#[derive(Clone)]
pub(super) struct StoreClient {
    store: Arc<dyn ObjectStore>,
    /// The same once more, where it lists in pages.
    pages: Option<Arc<dyn PaginatedListStore>>,
}

impl std::fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl StoreClient {
    pub(super) fn connect(
        url: &Url,
        options: &StoreOptions,
        explain: &Explain,
    ) -> Result<Self, StoreError> {
        let client = match url.scheme() {
            Scheme::S3 => s3(url, options).map(Self::paged),
            Scheme::Gs => GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(url.host())
                // As the crate has it: what is named by GOOGLE_BASE_URL may be plain.
                .with_client_options(client_options(options, Some("GOOGLE_"), true))
                .with_retry(retries(options))
                .build()
                .map(Self::paged),
            Scheme::Az => azure(url, options).map(Self::paged),
            Scheme::Http | Scheme::Https => web(url, options).map(|store| Self {
                store: Arc::new(store),
                pages: None,
            }),
        };
        client.map_err(|error| explain.settings(url, &error))
    }

    fn paged(store: impl ObjectStore + PaginatedListStore) -> Self {
        let store = Arc::new(store);
        Self {
            store: store.clone(),
            pages: Some(store),
        }
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    pub(super) fn pages(&self) -> Option<&dyn PaginatedListStore> {
        self.pages.as_deref()
    }
}

fn s3(url: &Url, options: &StoreOptions) -> object_store::Result<object_store::aws::AmazonS3> {
    let builder = AmazonS3Builder::from_env();
    // Whoever names a plain endpoint wants a plain connection.
    let endpoints = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint];
    let mut endpoints = endpoints
        .iter()
        .filter_map(|key| builder.get_config_value(key));
    let plain = endpoints.any(|endpoint| endpoint.starts_with("http://"));
    builder
        .with_bucket_name(url.host())
        // Not all that speak S3 know how to delete several objects in one request.
        .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true")
        .with_client_options(client_options(options, Some("AWS_"), plain))
        .with_retry(retries(options))
        .build()
}

fn azure(
    url: &Url,
    options: &StoreOptions,
) -> object_store::Result<object_store::azure::MicrosoftAzure> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(url.host());
    if let Some(token) = url.query() {
        builder = builder.with_config(AzureConfigKey::SasKey, token);
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    builder
        .with_client_options(client_options(options, Some("AZURE_"), plain))
        .with_retry(retries(options))
        .build()
}

fn web(url: &Url, options: &StoreOptions) -> object_store::Result<HttpStore> {
    let mut client = client_options(options, None, true);
    if let Some(user) = url.user() {
        let credentials = format!("Basic {}", BASE64_STANDARD.encode(user));
        // Base64 has no character that a header cannot have.
        if let Ok(mut value) = HeaderValue::from_str(&credentials) {
            value.set_sensitive(true);
            let headers = [(AUTHORIZATION, value)];
            client = client.with_default_headers(headers.into_iter().collect());
        }
    }
    // What is behind the `?` goes with each request.
    let query = url.query().map(|query| format!("?{query}"));
    let (scheme, query) = (url.scheme().name(), query.unwrap_or_default());
    HttpBuilder::new()
        .with_url(format!("{scheme}://{}/{query}", url.host()))
        .with_client_options(client)
        .with_retry(retries(options))
        .build()
}

/// Ours, and over them what the environment says under names that begin with `prefix`: proxies,
/// certificates, `ALLOW_HTTP`. With `plain`, connections without TLS are allowed in any case.
fn client_options(options: &StoreOptions, prefix: Option<&str>, plain: bool) -> ClientOptions {
    let ours = ClientOptions::new()
        // A large object over a slow line takes its time; what must not happen is silence.
        .with_timeout_disabled()
        .with_read_timeout(options.timeout)
        .with_connect_timeout(options.timeout);
    let client = env::vars_os().fold(ours, |client, (name, value)| {
        let name = name.to_str().and_then(|name| name.strip_prefix(prefix?));
        let key = name.and_then(|name| name.to_lowercase().parse::<ClientConfigKey>().ok());
        match (key, value.to_str()) {
            (Some(key), Some(value)) => client.with_config(key, value),
            _ => client,
        }
    });
    if plain {
        client.with_allow_http(true)
    } else {
        client
    }
}

fn retries(options: &StoreOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            max_backoff: MOST_BACKOFF,
            ..BackoffConfig::default()
        },
        max_retries: options.retries,
        retry_timeout: MOST_RETRYING,
    }
}
