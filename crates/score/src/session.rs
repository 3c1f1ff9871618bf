//! A graph in a session of `ort`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ort::session::builder::SessionBuilder;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionOutputs};
use ort::value::{Outlet, Tensor as OrtTensor, TensorElementType, TensorRef};

use super::{Buffer, EngineConfig, EngineError, ModelFile, Runtime};

/// How a session runs.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Threads that ONNX Runtime works on a batch with; tract has one.
    pub intra_threads: usize,
    /// What the user sets of ONNX Runtime's own options.
    pub config: Arc<EngineConfig>,
}

impl From<usize> for SessionOptions {
    /// So many threads, and the rest as it is by default.
    fn from(intra_threads: usize) -> Self {
        Self {
            intra_threads,
            config: Arc::default(),
        }
    }
}

/// A tensor's shape and values.
pub type Tensor = (Vec<usize>, Vec<f32>);

/// A graph of one input in a session of the engine that [`Runtime`] started.
#[derive(Debug)]
pub struct OrtSession {
    session: Session,
    room: Option<Room>,
    /// The GPU for which images are in page-locked memory.
    pinned: Option<u32>,
}

impl OrtSession {
    /// Loads a model from its file, of which no copy is held meanwhile.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), or the file is another one than was checked.
    pub(super) fn load_model(
        runtime: Runtime,
        model: &ModelFile,
        options: SessionOptions,
    ) -> Result<Self, EngineError> {
        if runtime.is_tract() {
            return Self::load(runtime, &model.bytes()?, model.name(), options);
        }
        let commit = |builder: &mut SessionBuilder| builder.commit_from_file(model.path());
        let session = Self::commit(runtime, model.name(), &options, commit)?;
        // What the engine has read is what was checked if it is so before and after.
        model.check_unchanged()?;
        Ok(session)
    }

    /// Loads an ONNX file's `bytes`; `what` stands for it in errors. `options` may be a number of
    /// threads.
    ///
    /// # Errors
    ///
    /// [`EngineError::Device`] if the device cannot be had, [`EngineError::Model`] if the engine
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
        let room = Room::of(&session).filter(|_| !runtime.is_tract());
        let cuda = options.config.cuda.clone().unwrap_or_default();
        Ok(Self {
            session,
            room,
            pinned: runtime.device().gpu().filter(|_| cuda.pinned_memory),
        })
    }

    /// Room for `len` values of images.
    ///
    /// # Errors
    ///
    /// A sentence, if there is not enough page-locked memory.
    pub fn buffer(&self, len: usize) -> Result<Buffer, String> {
        let Some(gpu) = self.pinned else {
            return Ok(Buffer::heap(len));
        };
        Buffer::pinned(&self.session, gpu, len).map_err(|e| {
            let mb = (len * size_of::<f32>()) as f64 / 1e6;
            format!(
                "{mb:.0} MB of page-locked memory for a batch cannot be had ({e}); take a smaller \
                 --batch, or set `pinned_memory = false` in the table [cuda] of --engine-config"
            )
        })
    }

    /// Shape and values of the only output for `images` `[N, C, H, W]`.
    ///
    /// # Errors
    ///
    /// A sentence, if there are not as many images as `shape` says, or the engine fails.
    pub fn run(&mut self, images: &[f32], shape: [usize; 4]) -> Result<Tensor, String> {
        tensor(&self.outputs(images, shape)?[0])
    }

    /// Shape and values of the outputs of those names, in their order.
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
        let outputs = self.outputs(images, shape)?;
        let find = |name: &&str| {
            let output = outputs.get(name);
            tensor(output.ok_or_else(|| format!("it has no output `{name}`"))?)
        };
        names.iter().map(find).collect()
    }

    fn outputs(&mut self, images: &[f32], shape: [usize; 4]) -> Result<SessionOutputs<'_>, String> {
        let wanted: usize = shape.iter().product();
        if wanted != images.len() || wanted == 0 {
            return Err(format!(
                "{} values were given for an input of {shape:?}",
                images.len()
            ));
        }
        let input = TensorRef::from_array_view((shape, images)).map_err(|e| e.to_string())?;
        let inputs = ort::inputs![input];
        let outputs = match &mut self.room {
            Some(room) => room
                .of_images(shape[0])
                .and_then(|options| self.session.run_with_options(inputs, options)),
            None => self.session.run(inputs),
        };
        outputs.map_err(|e| e.to_string())
    }
}

fn tensor(output: &ort::value::DynValue) -> Result<Tensor, String> {
    let output = output.try_extract_tensor::<f32>();
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
        // Weights take what they need; the arena would take the next power of two.
        .with_device_allocated_initializers()?)
}

/// Room for the outputs, made beforehand.
///
/// Of each output that `ort` 2.0.0-rc.14 lets an engine make, it forgets some 280 bytes (40 with
/// tract, which takes no such room).
struct Room {
    /// Name and shape of each output.
    outputs: Vec<(String, OutputShape)>,
    /// For the number of images that there were last.
    last: Option<(usize, RunOptions<HasSelectedOutputs>)>,
}

/// The shape of an output of which at most the first dimension is left open, for the images.
struct OutputShape {
    first: Option<usize>,
    rest: Vec<usize>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names = self.outputs.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl Room {
    /// For the outputs of `session`; `None` unless it tells how large they are.
    fn of(session: &Session) -> Option<Self> {
        let outputs = session.outputs().iter();
        let outputs =
            outputs.map(|outlet| Some((outlet.name().to_owned(), OutputShape::of(outlet)?)));
        Some(Self {
            outputs: outputs.collect::<Option<_>>()?,
            last: None,
        })
    }

    fn of_images(&mut self, images: usize) -> ort::Result<&RunOptions<HasSelectedOutputs>> {
        let options = match self.last.take() {
            Some((count, options)) if count == images => options,
            _ => {
                let mut selected = OutputSelector::default();
                for (name, OutputShape { first, rest }) in &self.outputs {
                    let shape = [&[first.unwrap_or(images)], &rest[..]].concat();
                    let values = vec![0_f32; shape.iter().product()];
                    selected = selected.preallocate(name, OrtTensor::from_array((shape, values))?);
                }
                RunOptions::new()?.with_outputs(selected)
            }
        };
        Ok(&self.last.insert((images, options)).1)
    }
}

impl OutputShape {
    /// Of an output of floats.
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
}
