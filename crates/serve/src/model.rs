//! A loaded model: its sessions, each on a thread, and their queue.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::metrics::{Metrics, ModelMetrics};
use super::queue::{Batching, Queue};
use super::worker::{InferenceWorker, warm_up, warm_up_sizes};
use rgby_common::memory;
use rgby_imaging::Preprocessor;
use rgby_score::model_metadata::ModelSpec;
use rgby_score::{Device, EngineError, ModelFile, OrtEngine, Runtime, SessionOptions};

/// Devices and sessions that run the models.
#[derive(Debug, Clone)]
pub struct Engines {
    /// One per device; at least one.
    pub runtimes: Vec<Runtime>,
    /// Sessions per device; at least 1.
    pub sessions: usize,
    pub session: SessionOptions,
}

/// Creates [`Model`]s.
#[derive(Debug)]
pub struct ModelLoader {
    engines: Engines,
    batching: Batching,
    metrics: Arc<Metrics>,
    /// Threads of all models, including dropped ones.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A loaded model. After it is dropped, its workers finish the queue and free its memory.
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
    #[must_use]
    pub fn new(engines: Engines, batching: Batching, metrics: Arc<Metrics>) -> Self {
        Self {
            engines,
            batching,
            metrics,
            threads: Mutex::default(),
        }
    }

    #[must_use]
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    #[must_use]
    pub fn batching(&self) -> Batching {
        self.batching
    }

    /// Loads a validated model into its sessions, warms them up and starts their threads.
    ///
    /// # Errors
    ///
    /// The runtime cannot load the model, or a session fails in the warm-up.
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
            let Engines {
                sessions, session, ..
            } = &self.engines;
            let load = || OrtEngine::load_several(*runtime, file, session, *sessions);
            for engine in memory::while_loading(load)? {
                let mut engine = engine.with_embeddings();
                warm_up(&mut engine, max_batch)?;
                // On a GPU each new batch size is slow once: TensorRT builds an engine for it, and
                // cuDNN searches for algorithms.
                let fixed_sizes = runtime.device() != Device::Cpu;
                workers.push(InferenceWorker {
                    engine: Box::new(engine),
                    queue: queue.clone(),
                    metrics: metrics.clone(),
                    batch_sizes: fixed_sizes.then(|| warm_up_sizes(max_batch)),
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
        self.metrics.set_loaded(model.labels(), true);
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
                reason: format!("cannot start a thread for the session: {error}"),
            })?);
        }
        Ok(())
    }

    /// Waits for the threads of all models, which must have been dropped. Sessions must end before
    /// the process exits.
    pub fn join(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // Workers catch panics of the session; any other panic is irrelevant at shutdown.
            let _ = thread.join();
        }
    }
}

impl Model {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the version, a decimal integer.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the SHA-256 of the model file in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

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
        self.server.set_loaded(self.labels(), false);
    }
}
