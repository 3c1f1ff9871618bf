//! Test helpers of several modules.

use std::sync::Arc;

use super::Dataset;
use rgby_imaging::Sample;

/// Returns a data set without images. Sample `i` has the id `s<i>` and the classes `targets[i]`.
pub(super) fn labelled(targets: Vec<Vec<u16>>, num_classes: usize) -> Dataset {
    let channels: Arc<[String]> = Arc::new([]);
    let sample = |number: usize| Sample {
        id: format!("s{number}"),
        channels: channels.clone(),
        files: Vec::new(),
        picks: Arc::default(),
    };
    Dataset {
        samples: (0..targets.len()).map(sample).collect(),
        targets,
        num_classes,
    }
}
