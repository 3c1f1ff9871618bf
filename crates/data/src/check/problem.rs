//! What can be wrong with a data set.

use serde::Serialize;

/// A kind of problem. The names that users see, and allow, are those of the variants in kebab case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The image folder or manifest contradicts itself, so that no image could be looked at.
    Images,
    /// A line of the labels file that cannot be read.
    LabelLine,
    /// An id that stands on several lines of the labels file.
    DuplicateId,
    /// A label that is no class, or not one of the expected ones.
    UnknownLabel,
    /// A sample without any class.
    EmptyLabel,
    /// A labelled sample without any image.
    NoImages,
    /// A sample that lacks some of its channels.
    MissingChannel,
    /// A file that is no image, damaged, or too large.
    Unreadable,
    /// A file of another size than the sample's first one.
    SizeDiffers,
    /// A sample with the same pixels as another one.
    DuplicateSample,
    /// A channel with the same pixels as another channel, of the same sample or of another one.
    DuplicateImage,
    /// Images without a line in the labels file: training leaves them out.
    NoLabel,
    /// A channel of one gray value throughout.
    ConstantImage,
    /// A sample of another size than most.
    UnusualSize,
    /// A channel that leaves most of the gray values unused in all images.
    DarkChannel,
    /// A class that no sample carries.
    AbsentClass,
    /// A class that fewer than [`RARE`] samples carry.
    RareClass,
}

/// A class on fewer samples is rare: a validation fifth of them holds one or none.
pub const RARE: usize = 10;

/// Whether a problem makes a data set unfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Training would stop, learn what is not meant, or be judged on what it was trained on.
    Error,
    /// Somebody should know; the data set may be meant that way.
    Warning,
}

impl Severity {
    /// Returns the name in tables: `error` or `warning`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl ProblemKind {
    /// What it is unless the user allows it.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::NoLabel
            | Self::ConstantImage
            | Self::UnusualSize
            | Self::DarkChannel
            | Self::AbsentClass
            | Self::RareClass => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::LabelLine => "label-line",
            Self::DuplicateId => "duplicate-id",
            Self::UnknownLabel => "unknown-label",
            Self::EmptyLabel => "empty-label",
            Self::NoImages => "no-images",
            Self::MissingChannel => "missing-channel",
            Self::Unreadable => "unreadable",
            Self::SizeDiffers => "size-differs",
            Self::DuplicateSample => "duplicate-sample",
            Self::DuplicateImage => "duplicate-image",
            Self::NoLabel => "no-label",
            Self::ConstantImage => "constant-image",
            Self::UnusualSize => "unusual-size",
            Self::DarkChannel => "dark-channel",
            Self::AbsentClass => "absent-class",
            Self::RareClass => "rare-class",
        }
    }

    /// Returns what to do about a problem of this kind.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Images => "fix the folder or manifest, then check again",
            Self::LabelLine => "correct the line",
            Self::DuplicateId => "keep one line of each id",
            Self::UnknownLabel => {
                "correct the label, or say which classes there are with --classes or --labels-from"
            }
            Self::EmptyLabel => {
                "label the sample or take its line out; if it shows none of the classes, \
                 --allow empty-label"
            }
            Self::NoImages => "add the images, or take the line out",
            Self::MissingChannel => "add the file, or take the sample out",
            Self::Unreadable => "fetch or export the file again",
            Self::SizeDiffers => "export all channels of the sample in one size",
            Self::DuplicateSample => {
                "keep one: a split may put one into training and the other into validation"
            }
            Self::DuplicateImage => "find out which is right: a file was copied or misnamed",
            Self::NoLabel => "add a line for it if it should be trained on",
            Self::ConstantImage => "look at it: an empty field, or a failed exposure or export",
            Self::UnusualSize => "look at it: all are resized to the network's input",
            Self::DarkChannel => {
                "export it scaled to the full range: 12-bit values in a 16-bit file look black"
            }
            Self::AbsentClass => "add samples, or leave the class out",
            Self::RareClass => {
                "add samples, use a stratified split and data.sampler = \"balanced\""
            }
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// Whether it makes the data set unfit.
    pub severity: Severity,
    /// The sample; empty where it is about something else.
    pub id: String,
    /// The file; empty where there is none to name.
    pub file: String,
    /// What is wrong, in a sentence without the id and file.
    pub message: String,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, id: &str, file: String, message: String) -> Self {
        Self {
            kind,
            severity: kind.severity(),
            id: id.to_owned(),
            file,
            message,
        }
    }
}
