//! A model that is loaded: its engines, each on a thread, and the queue before them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::metrics::{Metrics, ModelMetrics};
use super::queue::{Batching, Queue};
use super::worker::{InferenceWorker, buckets, warm_up};
use rgby_imaging::Preprocessor;
use rgby_score::model_metadata::ModelSpec;
use rgby_score::{Device, EngineError, ModelFile, OrtEngine, Runtime, SessionOptions};

/// Where models run, and how.
#[derive(Debug, Clone)]
pub struct Engines {
    /// One for each device; at least one.
    pub runtimes: Vec<Runtime>,
    /// Sessions on each device; at least 1.
    pub sessions: usize,
    /// How each of them runs.
    pub session: SessionOptions,
}

/// Makes [`Model`]s.
#[derive(Debug)]
pub struct ModelLoader {
    engines: Engines,
    batching: Batching,
    metrics: Arc<Metrics>,
    /// Of all models, those that were dropped included.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A model that answers. Once it is dropped, it computes what is queued and gives back its memory.
#[derive(Debug)]
pub struct Model {
    name: String,
    version: String,
    sha256: String,
    spec: Arc<ModelSpec>,
    preparer: Preprocessor,
    queue: Arc<Queue>,
    metrics: ModelMetrics,
    server: Arc<Metrics>,
}

impl ModelLoader {
    /// A loader of models that all run in the same way.
    #[must_use]
    pub fn new(engines: Engines, batching: Batching, metrics: Arc<Metrics>) -> Self {
        Self {
            engines,
            batching,
            metrics,
            threads: Mutex::default(),
        }
    }

    /// What runs the models.
    #[must_use]
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// How requests are joined.
    #[must_use]
    pub fn batching(&self) -> Batching {
        self.batching
    }

    /// Loads a checked model into its sessions, warms each of them up and starts their threads.
    ///
    /// # Errors
    ///
    /// An engine cannot load it, or fails in the warm-up.
    pub fn load(
        &self,
        name: &str,
        version: &str,
        file: &ModelFile,
    ) -> Result<Arc<Model>, EngineError> {
        let Batching { max_batch, .. } = self.batching;
        let metrics = self.metrics.model(name);
        let queue = Arc::new(Queue::new(self.batching, metrics.clone()));
        let mut workers = Vec::new();
        for runtime in &self.engines.runtimes {
            for _ in 0..self.engines.sessions {
                let engine = OrtEngine::load(*runtime, file, self.engines.session.clone())?;
                let mut engine = engine.with_embeddings();
                warm_up(&mut engine, max_batch)?;
                // TensorRT builds an engine for a new shape, and cuDNN looks for algorithms.
                let whole_batches = runtime.device() != Device::Cpu;
                workers.push(InferenceWorker {
                    engine: Box::new(engine),
                    queue: queue.clone(),
                    metrics: metrics.clone(),
                    buckets: whole_batches.then(|| buckets(max_batch)),
                });
            }
        }
        let model = Arc::new(Model {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256: file.sha256().to_owned(),
            spec: file.spec().clone(),
            preparer: Preprocessor::new(file.spec().preprocess.clone()),
            queue,
            metrics,
            server: self.metrics.clone(),
        });
        self.start(workers, file.path())?;
        self.metrics.loaded(model.labels(), true);
        Ok(model)
    }

    fn start(&self, workers: Vec<InferenceWorker>, path: &Path) -> Result<(), EngineError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        for worker in workers {
            let thread = thread::Builder::new().name("engine".into());
            let thread = thread.spawn(|| worker.run());
            threads.push(thread.map_err(|error| EngineError::Model {
                path: path.to_owned(),
                reason: format!("the system gives no thread to run it on: {error}"),
            })?);
        }
        Ok(())
    }

    /// Waits for the threads of all models, which must have been dropped: sessions must end before
    /// the process does.
    pub fn join(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // Workers catch the engine's panics; there is nobody left to tell of another.
            let _ = thread.join();
        }
    }
}

impl Model {
    /// The name by which clients know it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version: a whole number.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// SHA-256 of its file, in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What it is and wants.
    #[must_use]
    pub fn spec(&self) -> &Arc<ModelSpec> {
        &self.spec
    }

    pub(super) fn preparer(&self) -> &Preprocessor {
        &self.preparer
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(super) fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    fn labels(&self) -> [&str; 3] {
        [&self.name, &self.version, &self.sha256]
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.queue.close();
        self.server.loaded(self.labels(), false);
    }
}
