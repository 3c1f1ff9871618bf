//! A client for each kind of store, configured from the environment.

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
use super::error_translator::ErrorTranslator;

/// Longest wait between two retries.
const MAX_BACKOFF: Duration = Duration::from_secs(15);
/// Credentials of a request may expire; `object_store` asks for less than five minutes.
const MAX_RETRY_TIME: Duration = Duration::from_mins(3);

/// A client of one bucket, container or web server.
#[derive(Clone)]
pub(super) struct StoreClient {
    store: Arc<dyn ObjectStore>,
    /// The same store, if it lists in pages.
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
        errors: &ErrorTranslator,
    ) -> Result<Self, StoreError> {
        let client = match url.scheme() {
            Scheme::S3 => s3(url, options).map(Self::paged),
            Scheme::Gs => GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(url.host())
                // As in `object_store`: GOOGLE_BASE_URL may be a plain HTTP URL.
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
        client.map_err(|error| errors.settings(url, &error))
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
    // An endpoint that starts with http:// asks for a connection without TLS.
    let endpoints = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint];
    let mut endpoints = endpoints
        .iter()
        .filter_map(|key| builder.get_config_value(key));
    let plain = endpoints.any(|endpoint| endpoint.starts_with("http://"));
    builder
        .with_bucket_name(url.host())
        // Not all S3-compatible stores support bulk deletion.
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
        // Base64 text is always a valid header value.
        if let Ok(mut value) = HeaderValue::from_str(&credentials) {
            value.set_sensitive(true);
            let headers = [(AUTHORIZATION, value)];
            client = client.with_default_headers(headers.into_iter().collect());
        }
    }
    // The query is sent with each request.
    let query = url.query().map(|query| format!("?{query}"));
    let (scheme, query) = (url.scheme().name(), query.unwrap_or_default());
    HttpBuilder::new()
        .with_url(format!("{scheme}://{}/{query}", url.host()))
        .with_client_options(client)
        .with_retry(retries(options))
        .build()
}

/// Returns our client options, overridden by environment variables that start with `prefix`:
/// proxies, certificates, `ALLOW_HTTP`. With `plain`, connections without TLS are always allowed.
fn client_options(options: &StoreOptions, prefix: Option<&str>, plain: bool) -> ClientOptions {
    let defaults = ClientOptions::new()
        // A large object over a slow network takes long; only silence is an error.
        .with_timeout_disabled()
        .with_read_timeout(options.timeout)
        .with_connect_timeout(options.timeout);
    let client = env::vars_os().fold(defaults, |client, (name, value)| {
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
            max_backoff: MAX_BACKOFF,
            ..BackoffConfig::default()
        },
        max_retries: options.retries,
        retry_timeout: MAX_RETRY_TIME,
    }
}
