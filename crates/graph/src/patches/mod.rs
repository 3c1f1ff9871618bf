//! Labelled patches that normalize exports, so that they can be matched.
//!
//! Each patch is applied completely or not at all and keeps the outputs of the network for an image.
//! [`normalize`] applies them in order.

mod absorb_relu;
mod arithmetic;
mod channels_first;
mod classifier;
mod constants;
mod identities;
mod padding;

pub use absorb_relu::absorb_relu;
pub use classifier::drop_classifier;

use super::{GraphError, GraphProto};
pub(crate) use channels_first::channels_first;
pub(crate) use constants::{constants_to_initializers, fold_constants};
pub(crate) use identities::inline_identities;
pub(crate) use padding::explicit_padding;

/// Normalizes a graph for matching and cuts it after the last feature map.
///
/// Image and feature maps become `[N, C, H, W]`.
///
/// # Errors
///
/// [`GraphError::Patch`] names the patch and the node that prevents it.
pub fn normalize(graph: &mut GraphProto) -> Result<(), GraphError> {
    constants_to_initializers(graph)?;
    inline_identities(graph)?;
    fold_constants(graph)?;
    channels_first(graph)?;
    explicit_padding(graph)?;
    drop_classifier(graph)
}
