//! Errors of multi-channel TIFF files.

use thiserror::Error;

/// Why channels cannot be read from a multi-channel file. The text follows the file's name.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ChannelError {
    #[error(
        "is not a TIFF file, and only these contain several channels; name one file per channel"
    )]
    NotTiff,
    /// No channel has the required name or number.
    #[error(
        "has no channel `{wanted}`; its channels are {found}; select by name or number, such as \
         --channel red=0 (in a manifest: file.tif#0)"
    )]
    Missing { wanted: String, found: String },
    /// Several channels have the required name.
    #[error("has several channels `{wanted}`; its channels are {found}; select by number")]
    Ambiguous { wanted: String, found: String },
    /// A Z or T stack.
    #[error(
        "is a stack of {depth} Z planes and {time} time points; only one of each is supported, so \
         store a single plane or a projection"
    )]
    Stack { depth: u64, time: u64 },
    /// A description of no image or of several images.
    #[error("its OME-XML describes {0} images instead of 1; store one field of view per file")]
    Images(usize),
    #[error(
        "its OME-XML refers to another file for channel {0}; store all channels in one file, or \
         list the files in a manifest"
    )]
    OtherFile(u64),
    /// Several pages with several samples per pixel.
    #[error(
        "has {pages} pages of {samples} samples per pixel; channels must be either pages or \
         samples, so store a single page or gray pages"
    )]
    Mixed {
        pages: usize,
        /// Samples per pixel of the first page.
        samples: usize,
    },
    /// The description contradicts the file.
    #[error(
        "its description has {field} {described}, but the file has {found}; write the file again"
    )]
    Contradiction {
        field: &'static str,
        described: String,
        found: String,
    },
    /// Invalid OME-XML.
    #[error("its OME-XML is invalid ({0}); write the file again, or in another format")]
    Description(String),
    /// The pages of the required channels differ in size.
    #[error(
        "has a channel of {}×{} pixels after one of {}×{}; all channels must have the same size",
        size.0, size.1, expected.0, expected.1
    )]
    PagesDiffer {
        size: (u32, u32),
        expected: (u32, u32),
    },
    /// Too many pages, or a cycle of pages.
    #[error("has more than {0} pages, or a cycle of pages")]
    TooManyPages(usize),
}
