//! ONNX graphs: bytes in, bytes out.
//!
//! A leaf that knows nothing of the rest of rgby, so that `build.rs` can include it as it is. It
//! reads untrusted files ([`check`], [`external`]), brings them into one form by labelled patches
//! ([`patches`]), finds the weights of one graph in another of the same structure ([`matching`],
//! [`adoption`]), and makes a graph smaller for scoring ([`folding`], [`float16`], [`quantize`]).

pub mod adoption;
mod affine;
pub mod attributes;
mod budget;
pub mod check;
pub mod extent;
pub mod external;
#[cfg(all(test, unix))]
#[path = "tests/external.rs"]
mod external_tests;
pub mod float16;
pub mod folding;
#[cfg(test)]
#[path = "tests/hostile.rs"]
mod hostile;
pub mod matching;
pub mod network;
#[cfg(test)]
#[path = "tests/numbers.rs"]
mod numbers;
mod operator;
pub mod patches;
pub mod quantize;
#[cfg(test)]
#[path = "tests/quantizing.rs"]
mod quantizing;
pub mod surgery;
pub mod tensor;
#[cfg(test)]
mod tests;
mod view;

pub use check::{complete, read, read_bytes, read_unchecked};
pub use onnx_ir::{GraphProto, Message, ModelProto, NodeProto, TensorProto};

/// What can be wrong with an ONNX file. Each message stands alone after the file's name.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file is larger than an ONNX file can be.
    #[error("is {0} bytes long; an ONNX file without external data is at most 2 GiB")]
    TooLarge(u64),
    /// The bytes are not an ONNX model.
    #[error("is not an ONNX model ({0}); pass the .onnx file that an exporter wrote")]
    NotOnnx(String),
    /// The operator set is outside what this crate understands.
    #[error("uses operator set {0}; re-export it with an opset from 9 to 22")]
    Opset(i64),
    /// Weights are stored in another file.
    #[error(
        "keeps the weights of `{0}` in a separate file; re-export it as one file \
         (torch.onnx.export(..., external_data=False))"
    )]
    ExternalData(String),
    /// Weights are stored in another file that cannot be read.
    #[error("keeps the weights of `{tensor}` in the file `{}`: {source}", location.escape_debug())]
    External {
        /// Name of the tensor.
        tensor: String,
        /// What the model says where its data is.
        location: String,
        /// Why it cannot be read.
        source: external::ExternalError,
    },
    /// There is more of something than any network has.
    #[error(
        "holds {found} {what}; at most {limit} are read, more than networks need: check the file"
    )]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much.
        found: u64,
        /// How much is read.
        limit: u64,
    },
    /// A part of ONNX that networks for images do without.
    #[error("uses {what}, which is not read; {mend}")]
    Unsupported {
        /// Which part, and where.
        what: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// A tensor's data does not agree with its shape or type.
    #[error("initializer `{name}`: {reason}")]
    Tensor {
        /// Name of the initializer.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The graph contradicts itself.
    #[error("is not a valid graph: {0}")]
    Invalid(String),
    /// A patch could not be applied; the graph is as it was.
    #[error("{patch}: {reason}")]
    Patch {
        /// Label of the patch.
        patch: &'static str,
        /// Which node or value stood in the way.
        reason: String,
    },
    /// The graph is not the expected network.
    #[error(transparent)]
    Mismatch(#[from] matching::Mismatch),
}
