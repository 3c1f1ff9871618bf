//! Handles on a session of `ort`. On the CPU, several handles share one session and its weights.

use std::ffi::CString;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ort::AsPointer;
use ort::session::Session;
use ort::value::{DynValue, Tensor};

/// A session that this handle runs, alone or together with other handles.
pub(super) struct SessionHandle {
    shared: Arc<NamedSession>,
    /// Whether the engine supports several runs of one session at a time.
    is_shareable: bool,
}

/// A session and its names, as the C API takes them.
struct NamedSession {
    session: Session,
    input: CString,
    outputs: Vec<CString>,
}

impl SessionHandle {
    /// Creates the first handle on `session`, which has one input.
    ///
    /// `is_shareable` must be true only for ONNX Runtime on the CPU.
    ///
    /// # Errors
    ///
    /// The session has no input, or a name contains a zero byte.
    pub(super) fn new(session: Session, is_shareable: bool) -> ort::Result<Self> {
        let no_input = || ort::Error::new("the model has no input");
        let input = session.inputs().first().ok_or_else(no_input)?;
        let outputs = session.outputs().iter();
        let outputs = outputs.map(|output| CString::new(output.name()));
        let shared = NamedSession {
            input: CString::new(input.name())?,
            outputs: outputs.collect::<Result<_, _>>()?,
            session,
        };
        Ok(Self {
            shared: Arc::new(shared),
            is_shareable,
        })
    }

    /// Returns another handle on the same session; `None` if the engine supports only one run of a
    /// session at a time.
    pub(super) fn share(&self) -> Option<Self> {
        self.is_shareable.then(|| Self {
            shared: self.shared.clone(),
            is_shareable: true,
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.shared.session
    }

    /// Runs the session on `input`. Writes each output into its place in `outputs`, which are in
    /// the order of the session's outputs: into the given tensor, or into a new one.
    ///
    /// `ort` requires an exclusive session for a run, because some execution providers are not
    /// thread-safe. So this calls the C API.
    ///
    /// # Errors
    ///
    /// The engine fails, or the number of outputs is not that of the session.
    #[allow(unsafe_code, reason = "`ort` has no run on a shared session")]
    pub(super) fn run(
        &mut self,
        input: &Tensor<f32>,
        outputs: &mut [Option<DynValue>],
    ) -> ort::Result<()> {
        let NamedSession {
            session,
            input: input_name,
            outputs: names,
        } = &*self.shared;
        if outputs.len() != names.len() {
            let (found, wanted) = (outputs.len(), names.len());
            let message = format!("{found} outputs were given to a session with {wanted}");
            return Err(ort::Error::new(message));
        }
        let input_names = [input_name.as_ptr()];
        let inputs = [input.ptr()];
        let output_names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let mut values: Vec<_> = outputs
            .iter_mut()
            .map(|value| value.as_mut().map_or(ptr::null_mut(), DynValue::ptr_mut))
            .collect();
        // SAFETY: All pointers are valid during the call: names and session are owned by `shared`,
        // and `input` and `outputs` are borrowed. Each array has as many elements as its length
        // says. A null pointer for the options selects the defaults, and for an output, a new
        // tensor. The outputs are borrowed exclusively, and those of handles differ.
        // Only `share` makes a second handle, and only for ONNX Runtime on the CPU. There `Run` is
        // specified to be thread-safe, and kernels do not change the session. On other devices this
        // is the only handle, and it is borrowed exclusively.
        let status = unsafe {
            (ort::api().Run)(
                session.ptr().cast_mut(),
                ptr::null(),
                input_names.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                output_names.as_ptr(),
                output_names.len(),
                values.as_mut_ptr(),
            )
        };
        // SAFETY: The status was returned by the API and is used once.
        unsafe { ort::Error::result_from_status(status) }?;
        for (value, output) in values.into_iter().zip(outputs) {
            if output.is_none() {
                let value = NonNull::new(value);
                let value = value.ok_or_else(|| ort::Error::new("the engine skipped an output"))?;
                // SAFETY: The engine created this value for the caller, who owns it.
                *output = Some(unsafe { DynValue::from_ptr(value, Some(session.allocator())) });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let handles = Arc::strong_count(&self.shared);
        write!(f, "{:?} with {handles} handles", self.shared.session)
    }
}
