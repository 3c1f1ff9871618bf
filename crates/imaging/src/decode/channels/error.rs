//! Why a file does not yield the channels that are wanted of it.

use thiserror::Error;

/// What is wrong with a file of several channels, beside being no image.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ChannelError {
    /// Only TIFF files hold several channels.
    #[error("is no TIFF file, and only those hold several channels; name a file for each channel")]
    NotTiff,
    /// No channel has this name or number.
    #[error(
        "has no channel `{wanted}`; its channels are {found}: say which is which by name or \
         number, as in --channel red=0 (in a manifest: file.tif#0)"
    )]
    Missing {
        /// What was looked for.
        wanted: String,
        /// The channels that are there.
        found: String,
    },
    /// Several channels have this name.
    #[error("has several channels `{wanted}`; its channels are {found}: choose by number instead")]
    Ambiguous {
        /// What was looked for.
        wanted: String,
        /// The channels that are there.
        found: String,
    },
    /// A stack in depth or time.
    #[error(
        "is a stack of {depth} planes in depth and {time} in time; one of each is read, so store \
         one plane, or a projection, in a file"
    )]
    Stack {
        /// Planes in depth.
        depth: u64,
        /// Points in time.
        time: u64,
    },
    /// Several images, or none, in one description.
    #[error("its OME-XML describes {0} images; one is read, so store each field of view in a file")]
    Images(usize),
    /// A channel that is stored elsewhere.
    #[error(
        "its OME-XML says that channel {0} lies in another file; store all channels in one, or \
         name the files in a manifest"
    )]
    OtherFile(u64),
    /// Several pages, each with several samples a pixel.
    #[error(
        "has {pages} pages of {samples} samples a pixel; channels are either pages or samples: \
         store one page, or gray pages"
    )]
    Mixed {
        /// Number of pages.
        pages: usize,
        /// Samples a pixel of the first.
        samples: usize,
    },
    /// The description says something else than the file holds.
    #[error("its description says {what} {says}, but the file has {has}; write the file again")]
    Contradiction {
        /// What is said.
        what: &'static str,
        /// What the description says.
        says: String,
        /// What the file has.
        has: String,
    },
    /// OME-XML that cannot be understood.
    #[error("its OME-XML cannot be used ({0}); write the file again, or in another format")]
    Description(String),
    /// The pages of the wanted channels differ in size.
    #[error(
        "has a channel of {}×{} pixels after one of {}×{}; the channels of a sample must agree",
        size.0, size.1, expected.0, expected.1
    )]
    PagesDiffer {
        /// Width and height of the page at fault.
        size: (u32, u32),
        /// Width and height of the first page.
        expected: (u32, u32),
    },
    /// More pages than are read, or a chain of pages without an end.
    #[error("has more than {0} pages, or pages that follow each other in a circle")]
    TooManyPages(usize),
}
