//! Sessions of `ort`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ort::session::builder::SessionBuilder;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionOutputs};
use ort::value::{Outlet, Tensor as OrtTensor, TensorElementType, TensorRef};

use super::{Buffer, EngineConfig, EngineError, ModelFile, Runtime};

/// Options of a session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Threads of an ONNX Runtime session; tract uses one.
    pub intra_threads: usize,
    /// Options of ONNX Runtime.
    pub config: Arc<EngineConfig>,
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
    session: Session,
    preallocated: Option<PreallocatedOutputs>,
    /// GPU that copies images from page-locked memory.
    pinned: Option<u32>,
}

impl OrtSession {
    /// Loads a model from its file, without a copy of the file in memory.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), or the file was changed after it was checked.
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
        let preallocated = PreallocatedOutputs::of(&session).filter(|_| !runtime.is_tract());
        let cuda = options.config.cuda.clone().unwrap_or_default();
        Ok(Self {
            session,
            preallocated,
            pinned: runtime.device().gpu().filter(|_| cuda.pinned_memory),
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
        Buffer::pinned(&self.session, gpu, len).map_err(|e| {
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
        tensor(&self.outputs(images, shape)?[0])
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
        let outputs = self.outputs(images, shape)?;
        let find = |name: &&str| {
            let output = outputs.get(name);
            tensor(output.ok_or_else(|| format!("has no output `{name}`"))?)
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
        let outputs = match &mut self.preallocated {
            Some(outputs) => outputs
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
        // The arena would round the size of each weight up to a power of two.
        .with_device_allocated_initializers()?)
}

/// Memory for the outputs, allocated before a run.
///
/// `ort` 2.0.0-rc.14 leaks 280 bytes for each output that the engine allocates (40 with tract,
/// which does not support preallocated outputs).
struct PreallocatedOutputs {
    /// Name and shape of each output.
    outputs: Vec<(String, OutputShape)>,
    /// The number of images of the last run, and its outputs.
    last: Option<(usize, RunOptions<HasSelectedOutputs>)>,
}

/// Shape of an output whose first dimension may be the number of images.
struct OutputShape {
    first: Option<usize>,
    rest: Vec<usize>,
}

impl fmt::Debug for PreallocatedOutputs {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names = self.outputs.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl PreallocatedOutputs {
    /// Allocates the outputs of `session`; returns `None` if a shape is unknown.
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
}
