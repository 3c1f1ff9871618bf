//! Inference as all protocols see it: a model's name and some bytes in, its answer out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::lifecycle::Lifecycle;
use super::metrics::{Metrics, RequestStage};
use super::model::Model;
use super::queue::Pending;
use super::repository::{IndexEntry, Repository};
use super::{InferenceInput, ServeError, Trace};
use rgby_score::InferenceOutput;
use rgby_score::model_metadata::ModelSpec;

/// What a protocol makes of a request's bytes.
#[derive(Debug)]
pub struct Parsed<T> {
    /// The images.
    pub input: InferenceInput,
    /// The time that the client gives, if it says so in the request itself.
    pub timeout: Option<Duration>,
    /// What the protocol needs to write the answer.
    pub rest: T,
}

/// The server without any protocol. Cheap to share by [`Arc`].
#[derive(Debug)]
pub struct Service {
    repository: Repository,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    /// Threads that parse, decode and resize.
    preparers: rayon::ThreadPool,
    /// The most time that a request may take.
    timeout: Duration,
}

impl Service {
    /// A service of the repository's models, which need not be loaded yet.
    ///
    /// # Errors
    ///
    /// The system gives no threads.
    pub fn new(
        repository: Repository,
        metrics: Arc<Metrics>,
        decode_threads: usize,
        timeout: Duration,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let preparers = rayon::ThreadPoolBuilder::new()
            .num_threads(decode_threads)
            .thread_name(|number| format!("prepare-{number}"))
            // The request's channel is dropped with the closure, which its handler sees.
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

    /// The models.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Whether the server is ready.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The loaded model that a request is for, if there is room for the request.
    ///
    /// # Errors
    ///
    /// As [`Repository::get`], or [`ServeError::Overloaded`].
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, ServeError> {
        let model = self.repository.get(name, version)?;
        model.queue().check_room()?;
        Ok(model)
    }

    /// The time that a request has whose client gives it `timeout`.
    #[must_use]
    pub fn time(&self, timeout: Option<Duration>) -> Duration {
        timeout.map_or(self.timeout, |timeout| timeout.min(self.timeout))
    }

    /// Does work that takes its time on a thread for that. It is not begun once the future is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`ServeError::Failed`] if it panics.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
    ) -> Result<T, ServeError> {
        let (sender, done) = oneshot::channel();
        self.preparers.spawn(move || {
            if !sender.is_closed() {
                // A client that left needs no answer.
                let _ = sender.send(work());
            }
        });
        let lost = |_| ServeError::Failed("preparing the images failed".into());
        done.await.map_err(lost)?
    }

    /// Computes what `parse` finds in a request: it runs on a thread that may take its time.
    /// `timeout` is the client's, counted from now. Dropping the future gives up the request.
    ///
    /// # Errors
    ///
    /// What `parse` refuses; a full queue, a deadline that passed, an engine that fails.
    pub async fn infer<T: Send + 'static>(
        &self,
        model: &Arc<Model>,
        timeout: Option<Duration>,
        parse: impl FnOnce(&ModelSpec) -> Result<Parsed<T>, ServeError> + Send + 'static,
    ) -> Result<(InferenceOutput, T), ServeError> {
        let start = Instant::now();
        let deadline = start + self.time(timeout);
        let trace = Trace::current();
        trace.texts(&[
            ("rgby.model", model.name()),
            ("rgby.model_version", model.version()),
        ]);
        let for_model = model.clone();
        let prepare = move || prepare(&for_model, parse, (start, deadline), &trace);
        let prepared = timeout_at(deadline.into(), self.work(prepare)).await;
        let (pending, deadline, rest) = prepared.map_err(|_| ServeError::Deadline)??;
        let answer = timeout_at(deadline.into(), pending.answer()).await;
        let answer = answer.map_err(|_| ServeError::Deadline)??;
        model
            .metrics()
            .observe(RequestStage::Total, start.elapsed());
        Ok((answer, rest))
    }
}

/// What the protocol's extension for the model repository does. It reads files, which takes time.
impl Service {
    /// The models that are there or loaded, or only those that are `ready`.
    ///
    /// # Errors
    ///
    /// [`ServeError::Failed`] if listing them panics.
    pub async fn index(self: &Arc<Self>, ready: bool) -> Result<Vec<IndexEntry>, ServeError> {
        let mut entries = self.blocking(Repository::index).await?;
        entries.retain(|entry| entry.ready || !ready);
        Ok(entries)
    }

    /// Loads a model as it is on disk. A request's `parameters` would have it loaded otherwise.
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
                "parameter `{parameter}`: models are loaded as they are on the server's disk, \
                 without parameters"
            )));
        }
        let load = move |repository: &Repository| {
            let done = repository.load(&name);
            match &done {
                Ok(note) => tracing::info!("serving {note}"),
                Err(error) => tracing::error!(%error, "what was loaded stays"),
            }
            done.map(drop)
        };
        self.blocking(load).await?
    }

    /// Takes a model out of service.
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

/// Parses a request and puts its images into the queue; the deadline may have moved.
fn prepare<T>(
    model: &Model,
    parse: impl FnOnce(&ModelSpec) -> Result<Parsed<T>, ServeError>,
    (start, deadline): (Instant, Instant),
    trace: &Trace,
) -> Result<(Pending, Instant, T), ServeError> {
    let check = |deadline| {
        let late = Instant::now() >= deadline;
        if late {
            Err(ServeError::Deadline)
        } else {
            Ok(())
        }
    };
    check(deadline)?;
    let began = Instant::now();
    let parsed = parse(model.spec())?;
    let own = parsed
        .timeout
        .and_then(|timeout| start.checked_add(timeout));
    let deadline = own.map_or(deadline, |own| own.min(deadline));
    check(deadline)?;
    // Taken before the work, so that a full queue costs no more.
    let count = parsed.input.count();
    let places = model.queue().reserve(count)?;
    let rows = parsed.input.prepare(model)?;
    model
        .metrics()
        .observe(RequestStage::Prepare, began.elapsed());
    trace.stage("prepare", began, &[("rgby.images", count)]);
    let pending = model.queue().submit(places, rows, deadline, trace);
    Ok((pending, deadline, parsed.rest))
}
