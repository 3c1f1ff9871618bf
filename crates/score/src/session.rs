//! Sessions of `ort`.

use std::path::Path;
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Outlet, Tensor as OrtTensor, TensorElementType, TensorRef};

use super::session_handle::SessionHandle;
use super::{Buffer, EngineConfig, EngineError, ModelFile, Runtime};

/// Options of a session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Threads of an ONNX Runtime session; tract uses one.
    pub intra_threads: usize,
    /// Options of ONNX Runtime.
    pub config: Arc<EngineConfig>,
}

impl SessionOptions {
    /// Returns the options of one session that `count` threads run at a time, with as many threads
    /// as `count` sessions of [`intra_threads`](Self::intra_threads) have together.
    ///
    /// A thread that runs the session computes too, so all but one of them come in addition to the
    /// session's own threads.
    fn shared_by(&self, count: usize) -> Self {
        let all = count * self.intra_threads.max(1);
        Self {
            intra_threads: all - (count - 1),
            config: self.config.clone(),
        }
    }
}

impl From<usize> for SessionOptions {
    /// Default options with this number of threads.
    fn from(intra_threads: usize) -> Self {
        Self {
            intra_threads,
            config: Arc::default(),
        }
    }
}

/// Shape and values of a tensor.
pub type Tensor = (Vec<usize>, Vec<f32>);

/// A graph with one input, in a session of a [`Runtime`].
#[derive(Debug)]
pub struct OrtSession {
    handle: SessionHandle,
    outputs: OutputTensors,
    /// GPU that copies images from page-locked memory.
    pinned: Option<u32>,
}

impl OrtSession {
    /// Loads a model into `count` sessions of `options.intra_threads` threads each.
    ///
    /// ONNX Runtime holds the weights once for all sessions on the CPU: they are handles on one
    /// session, which has the threads of all.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), or the file was changed after it was checked.
    pub(super) fn load_several(
        runtime: Runtime,
        model: &ModelFile,
        options: &SessionOptions,
        count: usize,
    ) -> Result<Vec<Self>, EngineError> {
        let together = match runtime.session_groups(count)[..] {
            [_] => options.shared_by(count),
            _ => options.clone(),
        };
        let mut sessions = Vec::with_capacity(count);
        while sessions.len() < count {
            let shared = sessions.first().and_then(Self::share);
            sessions.push(match shared {
                Some(session) => session,
                None => Self::load_model(runtime, model, &together)?,
            });
        }
        Ok(sessions)
    }

    /// Loads a model from its file, without a copy of the file in memory.
    fn load_model(
        runtime: Runtime,
        model: &ModelFile,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        if runtime.is_tract() {
            return Self::load(runtime, &model.bytes()?, model.name(), options.clone());
        }
        let commit = |builder: &mut SessionBuilder| builder.commit_from_file(model.path());
        let session = Self::commit(runtime, model.name(), options, commit)?;
        // Unchanged before and after, the file is what the engine has read.
        model.check_unchanged()?;
        Ok(session)
    }

    /// Loads the `bytes` of an ONNX file; errors show `what`. `options` may be a number of threads.
    ///
    /// # Errors
    ///
    /// [`EngineError::Device`] if the device is not available, [`EngineError::Model`] if the engine
    /// cannot load the model.
    pub fn load(
        runtime: Runtime,
        bytes: &[u8],
        what: &Path,
        options: impl Into<SessionOptions>,
    ) -> Result<Self, EngineError> {
        Self::commit(runtime, what, &options.into(), |builder| {
            builder.commit_from_memory(bytes)
        })
    }

    fn commit(
        runtime: Runtime,
        what: &Path,
        options: &SessionOptions,
        commit: impl FnOnce(&mut SessionBuilder) -> ort::Result<Session>,
    ) -> Result<Self, EngineError> {
        let model_error = |e: ort::Error| EngineError::Model {
            path: what.to_owned(),
            reason: format!("{} cannot load it: {e}", runtime.describe()),
        };
        let mut builder = session_builder(runtime, options)
            .map_err(model_error)?
            .with_execution_providers(options.config.providers(runtime.device()))
            .map_err(|e| runtime.device_error(e))?;
        let session = commit(&mut builder).map_err(model_error)?;
        let outputs = OutputTensors::of(&session, !runtime.is_tract());
        let cuda = options.config.cuda.clone().unwrap_or_default();
        Ok(Self {
            handle: SessionHandle::new(session, runtime.shares_sessions()).map_err(model_error)?,
            outputs,
            pinned: runtime.device().gpu().filter(|_| cuda.pinned_memory),
        })
    }

    /// Returns a session with the same weights, if the engine supports several runs at a time.
    fn share(&self) -> Option<Self> {
        Some(Self {
            handle: self.handle.share()?,
            outputs: self.outputs.clone_shapes(),
            pinned: self.pinned,
        })
    }

    /// Allocates a buffer for `len` values of images.
    ///
    /// # Errors
    ///
    /// There is not enough page-locked memory.
    pub fn buffer(&self, len: usize) -> Result<Buffer, String> {
        let Some(gpu) = self.pinned else {
            return Ok(Buffer::heap(len));
        };
        Buffer::pinned(self.handle.session(), gpu, len).map_err(|e| {
            let mb = (len * size_of::<f32>()) as f64 / 1e6;
            format!(
                "cannot allocate {mb:.0} MB of page-locked memory for a batch ({e}); use a smaller \
                 --batch, or set `pinned_memory = false` in the table [cuda] of --engine-config"
            )
        })
    }

    /// Returns shape and values of the only output for `images` `[N, C, H, W]`.
    ///
    /// # Errors
    ///
    /// The number of values does not match `shape`, or the engine fails.
    pub fn run(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Tensor, String> {
        match self.outputs(images, shape)? {
            [output, ..] => tensor(output.as_ref()),
            [] => Err("has no outputs".into()),
        }
    }

    /// Returns shape and values of the named outputs, in order.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), or there is no output of that name.
    pub fn run_named(
        &mut self,
        images: &[f32],
        shape: [usize; 4],
        names: &[&str],
    ) -> Result<Vec<Tensor>, String> {
        let outlets = self.handle.session().outputs().iter();
        let all: Vec<String> = outlets.map(|outlet| outlet.name().to_owned()).collect();
        let outputs = self.outputs(images, shape)?;
        let find = |name: &&str| {
            let at = all.iter().position(|other| other == name);
            let at = at.ok_or_else(|| format!("has no output `{name}`"))?;
            tensor(outputs[at].as_ref())
        };
        names.iter().map(find).collect()
    }

    /// Runs the session; returns its outputs in order.
    fn outputs(
        &mut self,
        images: &[f32],
        shape: [usize; 4],
    ) -> Result<&[Option<DynValue>], String> {
        let wanted: usize = shape.iter().product();
        if wanted != images.len() || wanted == 0 {
            return Err(format!(
                "{} values were given for an input of {shape:?}",
                images.len()
            ));
        }
        let input = TensorRef::from_array_view((shape, images)).map_err(|e| e.to_string())?;
        let outputs = self.outputs.of_images(shape[0]);
        let outputs = outputs.map_err(|e| e.to_string())?;
        let run = self.handle.run(&input, outputs);
        run.map_err(|e| e.to_string())?;
        Ok(outputs)
    }
}

fn tensor(output: Option<&DynValue>) -> Result<Tensor, String> {
    let output = output.ok_or("lacks an output")?.try_extract_tensor::<f32>();
    let (shape, values) = output.map_err(|e| e.to_string())?;
    let shape = shape.iter().map(|size| *size as usize).collect();
    Ok((shape, values.to_vec()))
}

fn session_builder(runtime: Runtime, options: &SessionOptions) -> ort::Result<SessionBuilder> {
    let session = &options.config.session;
    let builder = Session::builder(runtime.environment())?
        .with_optimization_level(session.optimization.level())?;
    if runtime.is_tract() {
        return Ok(builder);
    }
    Ok(builder
        .with_intra_threads(options.intra_threads.max(1))?
        .with_intra_op_spinning(session.spinning)?
        .with_memory_pattern(session.memory_pattern)?
        // The arena would round the size of each weight up to a power of two.
        .with_device_allocated_initializers()?)
}

/// The outputs of a session. Those of known shape are allocated before a run.
///
/// `ort` 2.0.0-rc.14 leaks memory for each output that the engine allocates: with tract, which
/// does not support preallocated outputs, 40 bytes.
#[derive(Debug)]
struct OutputTensors {
    /// Of each output, in order; `None` if the engine allocates it.
    shapes: Vec<Option<OutputShape>>,
    values: Vec<Option<DynValue>>,
    /// The number of images of `values`.
    images: usize,
}

/// Shape of an output whose first dimension may be the number of images.
#[derive(Debug, Clone)]
struct OutputShape {
    first: Option<usize>,
    rest: Vec<usize>,
}

impl OutputTensors {
    fn of(session: &Session, preallocate: bool) -> Self {
        let outputs = session.outputs().iter();
        let shape = |outlet| OutputShape::of(outlet).filter(|_| preallocate);
        Self {
            shapes: outputs.map(shape).collect(),
            values: Vec::new(),
            images: 0,
        }
    }

    /// Returns the outputs of another session with the same graph.
    fn clone_shapes(&self) -> Self {
        Self {
            shapes: self.shapes.clone(),
            values: Vec::new(),
            images: 0,
        }
    }

    /// Returns the outputs for a run on this number of images.
    fn of_images(&mut self, images: usize) -> ort::Result<&mut [Option<DynValue>]> {
        if self.images == images {
            for (value, shape) in self.values.iter_mut().zip(&self.shapes) {
                // A value that the engine has allocated is for one run only.
                value.take_if(|_| shape.is_none());
            }
        } else {
            let shapes = self.shapes.iter();
            let allocate = |shape: &Option<OutputShape>| {
                let shape = shape.as_ref();
                shape.map(|shape| shape.allocate(images)).transpose()
            };
            self.values = shapes.map(allocate).collect::<Result<_, _>>()?;
            self.images = images;
        }
        Ok(&mut self.values)
    }
}

impl OutputShape {
    /// Returns the shape of a float32 output.
    fn of(outlet: &Outlet) -> Option<Self> {
        let sizes = outlet.dtype().tensor_shape()?.iter();
        let mut sizes = sizes.map(|&size| usize::try_from(size).ok());
        let shape = Self {
            first: sizes.next()?,
            rest: sizes.collect::<Option<_>>()?,
        };
        let floats = outlet.dtype().tensor_type() == Some(TensorElementType::Float32);
        floats.then_some(shape)
    }
    fn allocate(&self, images: usize) -> ort::Result<DynValue> {
        let shape = [&[self.first.unwrap_or(images)], &self.rest[..]].concat();
        let values = vec![0_f32; shape.iter().product()];
        Ok(OrtTensor::from_array((shape, values))?.into_dyn())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rgby_graph::Message;

    use super::*;
    use crate::RuntimeOptions;
    use crate::model::tests::{SIDE, tiny_model, write};

    /// Values of images between -1 and 1 that differ from run to run.
    fn images(count: usize, run: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 31 + run * 7) % 101) as f32 / 50.0 - 1.0;
        (0..count * 4 * SIDE * SIDE).map(value).collect()
    }

    fn infer(session: &mut OrtSession, count: usize, run: usize) -> Tensor {
        let shape = [count, 4, SIDE, SIDE];
        session.run(&images(count, run), shape).unwrap()
    }

    #[test]
    fn sessions_that_share_weights_compute_side_by_side() {
        const SESSIONS: usize = 4;
        let dir = tempfile::tempdir().unwrap();
        let model = ModelFile::open(&write(dir.path(), &tiny_model())).unwrap();
        let runtime = Runtime::start(&RuntimeOptions::default()).unwrap();
        let shared = !runtime.is_tract();
        let groups = runtime.session_groups(SESSIONS).len();
        assert_eq!(groups, if shared { 1 } else { SESSIONS });
        let runs = |session: &mut OrtSession, first: usize| -> Vec<Tensor> {
            (0..200)
                .map(|run| infer(session, 1 + (first + run) % 5, first + run))
                .collect()
        };
        for intra_threads in [1, 2] {
            let options = SessionOptions::from(intra_threads);
            let load = |count| OrtSession::load_several(runtime, &model, &options, count).unwrap();
            let (mut alone, mut together) = (load(1), load(SESSIONS));
            assert_eq!(together[0].share().is_some(), shared);
            let found: Vec<_> = thread::scope(|scope| {
                let sessions = together.iter_mut().enumerate();
                let threads: Vec<_> = sessions
                    .map(|(first, session)| scope.spawn(move || runs(session, first)))
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            for (first, found) in found.iter().enumerate() {
                assert!(*found == runs(&mut alone[0], first), "session {first}");
            }
        }
    }

    #[test]
    fn shared_sessions_have_the_threads_of_all() {
        let threads = |count, each| SessionOptions::from(each).shared_by(count).intra_threads;
        assert_eq!(threads(2, 1), 1);
        assert_eq!(threads(1, 4), 4);
        // Two threads call the session, six are its own.
        assert_eq!(threads(2, 4), 7);
    }

    #[test]
    fn an_output_of_unknown_shape_is_that_of_the_last_run() {
        let mut model = tiny_model();
        let output = &mut model.graph.as_mut().unwrap().output[0];
        let tensor = output.type_.as_mut().unwrap().mut_tensor_type();
        tensor.shape.as_mut().unwrap().dim[1].set_dim_param("K".into());
        let bytes = model.write_to_bytes().unwrap();
        let runtime = Runtime::start(&RuntimeOptions::default()).unwrap();
        let mut session = OrtSession::load(runtime, &bytes, Path::new("tiny"), 1).unwrap();
        let first = infer(&mut session, 2, 0);
        assert_eq!(first.0, [2, 4]);
        assert_ne!(infer(&mut session, 2, 1), first);
        assert_eq!(infer(&mut session, 3, 0).0, [3, 4]);
        assert_eq!(infer(&mut session, 2, 0), first);
        let named = session.run_named(&images(2, 0), [2, 4, SIDE, SIDE], &["probabilities"]);
        assert_eq!(named, Ok(vec![first]));
        let error = session.run_named(&images(2, 0), [2, 4, SIDE, SIDE], &["logits"]);
        assert_eq!(error, Err("has no output `logits`".into()));
    }
}
