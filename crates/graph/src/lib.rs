//! Reads, checks, rewrites and compares ONNX graphs.
//!
//! The crate depends on no other crate of rgby, so that build scripts can use it.
//!
//! - [`check`] and [`external`] read untrusted files within limits.
//! - [`patches`] normalizes a graph by labelled rewrites.
//! - [`matching`] and [`weight_transfer`] copy weights between graphs of the same structure.
//! - [`folding`], [`float16`] and [`quantize`] reduce a graph for scoring.
//! - [`proto`] holds the protobuf messages.

mod affine;
pub mod attributes;
mod budget;
pub mod check;
pub mod external;
#[cfg(all(test, unix))]
#[path = "tests/external.rs"]
mod external_tests;
pub mod feature_map_size;
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
#[cfg(test)]
#[path = "tests/properties.rs"]
mod properties;
pub mod proto;
pub mod quantize;
#[cfg(test)]
#[path = "tests/quantizing.rs"]
mod quantizing;
pub mod surgery;
pub mod tensor;
#[cfg(test)]
mod tests;
mod view;
pub mod weight_transfer;

pub use check::{complete, read, read_bytes, read_unchecked};
pub use proto::attribute_proto::AttributeType;
pub use proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
pub use protobuf::Message;

/// Why an ONNX file is refused or a patch is not applied. The caller puts the file's name in front.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(std::io::Error),
    /// The file exceeds the size limit of protobuf.
    #[error("is {0} bytes long: an ONNX file without external data has at most 2 GiB")]
    TooLarge(u64),
    /// The bytes are not an ONNX model.
    #[error("is not an ONNX model: {0}\nhint: pass the .onnx file that an exporter wrote")]
    NotOnnx(String),
    /// The operator set is not supported.
    #[error(
        "uses operator set {0}, which is not supported\nhint: re-export the model with an opset \
         from 9 to 22"
    )]
    Opset(i64),
    /// Weights are stored in another file where only one file is read.
    #[error(
        "stores the weights of `{0}` in a separate file\nhint: re-export the model as one file \
         (torch.onnx.export(..., external_data=False))"
    )]
    ExternalData(String),
    /// Weights are stored in another file that cannot be read.
    #[error(
        "cannot read the weights of `{tensor}` from the file `{}`: {cause}",
        location.escape_debug()
    )]
    External {
        /// Name of the tensor.
        tensor: String,
        /// Path of the file as the model states it.
        location: String,
        /// Part of the message, so not a `source`.
        cause: external::ExternalError,
    },
    /// A count exceeds its limit.
    #[error(
        "holds {found} {what}: at most {limit} are read\nhint: check the file; networks need fewer"
    )]
    Limit {
        /// What is counted, in the plural.
        what: &'static str,
        found: u64,
        limit: u64,
    },
    /// The model uses a part of ONNX that is not supported.
    #[error("uses {what}, which is not supported\nhint: {hint}")]
    Unsupported {
        /// The part of ONNX and where it is used.
        what: String,
        hint: &'static str,
    },
    /// A tensor's data does not agree with its shape or type.
    #[error("initializer `{name}`: {reason}")]
    Tensor { name: String, reason: String },
    /// The graph contradicts itself.
    #[error("is not a valid graph: {0}")]
    Invalid(String),
    /// A patch cannot be applied; the graph is unchanged.
    #[error("{patch}: {reason}")]
    Patch {
        /// Label of the patch.
        patch: &'static str,
        /// The node or value that prevents it.
        reason: String,
    },
    /// The graph is not the expected network.
    #[error(transparent)]
    Mismatch(#[from] matching::StructureMismatch),
}

impl From<std::io::Error> for GraphError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}
