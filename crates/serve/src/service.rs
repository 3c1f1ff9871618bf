//! Protocol-independent inference: model name and request bytes in, model outputs out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::lifecycle::Lifecycle;
use super::metrics::{Metrics, RequestStage};
use super::model::Model;
use super::queue::PendingResponse;
use super::repository::{IndexEntry, Repository};
use super::{InferenceInput, ServeError, Trace};
use rgby_score::InferenceOutput;
use rgby_score::model_metadata::ModelSpec;

/// A request that a protocol has parsed.
#[derive(Debug)]
pub struct ParsedRequest<T> {
    pub input: InferenceInput,
    /// Timeout from the request's body, if there is one.
    pub timeout: Option<Duration>,
    /// Data that the protocol needs to write the response.
    pub context: T,
}

/// The protocol-independent part of the server.
#[derive(Debug)]
pub struct Service {
    repository: Repository,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    /// Threads that parse, decode and resize images.
    preparers: rayon::ThreadPool,
    /// Maximum processing time of a request.
    timeout: Duration,
}

impl Service {
    /// Creates a service. The models of the repository may be loaded later.
    ///
    /// # Errors
    ///
    /// The threads cannot be started.
    pub fn new(
        repository: Repository,
        metrics: Arc<Metrics>,
        decode_threads: usize,
        timeout: Duration,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let preparers = rayon::ThreadPoolBuilder::new()
            .num_threads(decode_threads)
            .thread_name(|number| format!("prepare-{number}"))
            // A panic drops the request's channel, so its handler gets an error.
            .panic_handler(|_| tracing::error!("preparing a request panicked"))
            .build()?;
        Ok(Self {
            repository,
            lifecycle: Lifecycle::default(),
            metrics,
            preparers,
            timeout,
        })
    }

    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the loaded model for a request. `version` defaults to the newest one.
    ///
    /// # Errors
    ///
    /// As [`Repository::get`], or [`ServeError::Overloaded`] if the model's queue is full.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, ServeError> {
        let model = self.repository.get(name, version)?;
        model.queue().check_room()?;
        Ok(model)
    }

    /// Returns the smaller of the client's timeout and the server's.
    #[must_use]
    pub fn effective_timeout(&self, timeout: Option<Duration>) -> Duration {
        timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout))
    }

    /// Runs CPU-bound work on a preparer thread. The work does not start if the future is dropped
    /// before.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`ServeError::Failed`] if it panics.
    pub async fn run_on_preparer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
    ) -> Result<T, ServeError> {
        let (sender, done) = oneshot::channel();
        self.preparers.spawn(move || {
            if !sender.is_closed() {
                // An error means that the client has disconnected.
                let _ = sender.send(work());
            }
        });
        let panicked = |_| ServeError::Failed("preparing the images failed".into());
        done.await.map_err(panicked)?
    }

    /// Runs inference on a request. `parse` runs on a preparer thread. `timeout` is the client's
    /// and counts from now. Dropping the future cancels the request.
    ///
    /// # Errors
    ///
    /// Those of `parse`; a full queue, an exceeded deadline, or a failure of the session.
    pub async fn infer<T: Send + 'static>(
        &self,
        model: &Arc<Model>,
        timeout: Option<Duration>,
        parse: impl FnOnce(&ModelSpec) -> Result<ParsedRequest<T>, ServeError> + Send + 'static,
    ) -> Result<(InferenceOutput, T), ServeError> {
        let start = Instant::now();
        let deadline = start + self.effective_timeout(timeout);
        let trace = Trace::current();
        trace.texts(&[
            ("rgby.model", model.name()),
            ("rgby.model_version", model.version()),
        ]);
        let model_for_thread = model.clone();
        let prepare = move || prepare(&model_for_thread, parse, (start, deadline), &trace);
        let prepared = timeout_at(deadline.into(), self.run_on_preparer(prepare)).await;
        let (pending, deadline, context) = prepared.map_err(|_| ServeError::Deadline)??;
        let output = timeout_at(deadline.into(), pending.output()).await;
        let output = output.map_err(|_| ServeError::Deadline)??;
        model
            .metrics()
            .observe(RequestStage::Total, start.elapsed());
        Ok((output, context))
    }
}

/// The model repository extension. Its methods read files on tokio's blocking threads.
impl Service {
    /// Lists the models on disk and the loaded ones, or only the loaded ones if `ready`.
    ///
    /// # Errors
    ///
    /// [`ServeError::Failed`] if listing them panics.
    pub async fn index(self: &Arc<Self>, ready: bool) -> Result<Vec<IndexEntry>, ServeError> {
        let mut entries = self.blocking(Repository::index).await?;
        entries.retain(|entry| entry.ready || !ready);
        Ok(entries)
    }

    /// Loads a model from disk. `parameters` of the request are not supported.
    ///
    /// # Errors
    ///
    /// As [`Repository::load`]; [`ServeError::Invalid`] if there are parameters.
    pub async fn load<'a>(
        self: &Arc<Self>,
        name: String,
        mut parameters: impl Iterator<Item = &'a str>,
    ) -> Result<(), ServeError> {
        if let Some(parameter) = parameters.next() {
            let parameter: String = parameter.chars().take(64).collect();
            return Err(ServeError::Invalid(format!(
                "parameter `{parameter}` is not supported: models are loaded from the server's \
                 disk without parameters"
            )));
        }
        let load = move |repository: &Repository| {
            let loaded = repository.load(&name);
            match &loaded {
                Ok(note) => tracing::info!("serving {note}"),
                Err(error) => tracing::error!(%error, "kept the previous models"),
            }
            loaded.map(drop)
        };
        self.blocking(load).await?
    }

    /// Unloads a model.
    ///
    /// # Errors
    ///
    /// As [`Repository::unload`].
    pub async fn unload(self: &Arc<Self>, name: String) -> Result<(), ServeError> {
        self.blocking(move |repository| repository.unload(&name))
            .await?
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Repository) -> T + Send + 'static,
    ) -> Result<T, ServeError> {
        let service = self.clone();
        let done = tokio::task::spawn_blocking(move || work(service.repository())).await;
        done.map_err(|error| ServeError::Failed(error.to_string()))
    }
}

/// Parses a request and queues its images. Returns the deadline as well, because the request's own
/// timeout may shorten it.
fn prepare<T>(
    model: &Model,
    parse: impl FnOnce(&ModelSpec) -> Result<ParsedRequest<T>, ServeError>,
    (start, deadline): (Instant, Instant),
    trace: &Trace,
) -> Result<(PendingResponse, Instant, T), ServeError> {
    let check = |deadline| {
        let late = Instant::now() >= deadline;
        if late {
            Err(ServeError::Deadline)
        } else {
            Ok(())
        }
    };
    check(deadline)?;
    let prepare_start = Instant::now();
    let parsed = parse(model.spec())?;
    let requested = parsed
        .timeout
        .and_then(|timeout| start.checked_add(timeout));
    let deadline = requested.map_or(deadline, |requested| requested.min(deadline));
    check(deadline)?;
    // Reserved before the images are decoded, so that a full queue is detected cheaply.
    let count = parsed.input.count();
    let slots = model.queue().reserve(count)?;
    let rows = parsed.input.prepare(model)?;
    model
        .metrics()
        .observe(RequestStage::Prepare, prepare_start.elapsed());
    trace.stage("prepare", prepare_start, &[("rgby.images", count)]);
    let pending = model.queue().submit(slots, rows, deadline, trace);
    Ok((pending, deadline, parsed.context))
}
