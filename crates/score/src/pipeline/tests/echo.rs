//! A test engine that returns its input, with an optional delay and an optional failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::model_metadata::{ModelSpec, Precision, Provenance};
use crate::{Engine, EngineError, InferenceOutput};
use rgby_imaging::{CHANNELS, Preprocess};

/// Returns the first value of each image as the probability of its one class.
pub struct Echo {
    spec: ModelSpec,
    pause: Duration,
    /// Whether a batch is running.
    pub busy: Arc<AtomicBool>,
    /// Number of batches so far.
    pub given: Arc<AtomicU32>,
    /// The batch that fails, and how.
    fault: Option<(u32, EchoFault)>,
    runs: u32,
}

#[derive(Clone, Copy)]
pub enum EchoFault {
    Error,
    Panic,
}

impl Engine for Echo {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError> {
        self.given.fetch_add(1, Ordering::SeqCst);
        self.busy.store(true, Ordering::SeqCst);
        thread::sleep(self.pause);
        self.busy.store(false, Ordering::SeqCst);
        self.runs += 1;
        match self.fault {
            Some((at, EchoFault::Error)) if at == self.runs => Err(EngineError::Run {
                path: "m.onnx".into(),
                reason: "out of memory".into(),
            }),
            Some((at, EchoFault::Panic)) if at == self.runs => panic!("kernel bug"),
            _ => {
                let len = images.len() / batch;
                Ok(InferenceOutput {
                    probabilities: images.chunks(len).map(|image| image[0]).collect(),
                    embeddings: Vec::new(),
                })
            }
        }
    }
}

pub fn echo(pause_ms: u64, fault: Option<(u32, EchoFault)>) -> Box<dyn Engine> {
    Box::new(new_echo(pause_ms, fault))
}

pub fn new_echo(pause_ms: u64, fault: Option<(u32, EchoFault)>) -> Echo {
    let spec = ModelSpec {
        arch: "echo".into(),
        classes: vec!["one".into()],
        thresholds: vec![0.5],
        preprocess: Preprocess::new(&CHANNELS[..1], 2),
        provenance: Provenance::default(),
        precision: Precision::Fp32,
        embeddings: None,
    };
    let (pause, busy) = (Duration::from_millis(pause_ms), Arc::default());
    Echo {
        spec,
        pause,
        busy,
        given: Arc::default(),
        fault,
        runs: 0,
    }
}
