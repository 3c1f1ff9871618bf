//! Labelled patches that bring any export into one form, so that it can be matched.
//!
//! Each patch is applied whole or not at all, and changes nothing of what the network computes
//! for an image. [`normalise`] is the list of them in their order.

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
use channels_first::channels_first;
use constants::{constants_to_initializers, fold_constants};
use identities::inline_identities;
use padding::explicit_padding;

/// Brings a graph into the form in which it can be matched, up to its last feature map.
///
/// # Errors
///
/// [`GraphError::Patch`] names the patch and the node that stood in its way.
pub fn normalise(graph: &mut GraphProto) -> Result<(), GraphError> {
    constants_to_initializers(graph)?;
    inline_identities(graph)?;
    fold_constants(graph)?;
    channels_first(graph)?;
    explicit_padding(graph)?;
    drop_classifier(graph)
}
