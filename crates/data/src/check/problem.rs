//! Kinds of problems of a data set.

use serde::Serialize;

/// A kind of problem. Its name in reports and for `--allow` is the variant in kebab case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The image folder or manifest is inconsistent, so no image was checked.
    Images,
    /// A line of the labels file cannot be parsed.
    LabelLine,
    /// An id is on several lines of the labels file.
    DuplicateId,
    /// A label is not one of the expected classes.
    UnknownLabel,
    EmptyLabel,
    NoImages,
    /// A sample lacks some of its channels.
    MissingChannel,
    /// A file is not an image, damaged, or too large.
    Unreadable,
    /// A file differs in size from the first file of its sample.
    SizeDiffers,
    /// A sample has the same pixels as another one.
    DuplicateSample,
    /// A channel has the same pixels as another channel of any sample.
    DuplicateImage,
    /// Images have no line in the labels file. Training ignores them.
    NoLabel,
    /// A channel has a single gray value.
    ConstantImage,
    /// A sample differs in size from most others.
    UnusualSize,
    /// A channel uses only a small part of the gray scale in all images.
    DarkChannel,
    AbsentClass,
    /// A class has fewer than [`RARE`] samples.
    RareClass,
}

/// A class with fewer samples is rare: a validation fold of one fifth has one or none of them.
pub const RARE: usize = 10;

/// Whether a problem makes a data set unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Training would fail, learn wrong labels, or validate on training samples.
    Error,
    /// Possibly intended.
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
    /// Returns the severity, unless the user allows the kind.
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

    /// Returns the name in reports.
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

    /// Returns the suggested fix.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Images => "fix the folder or manifest, then check again",
            Self::LabelLine => "fix the line",
            Self::DuplicateId => "keep one line per id",
            Self::UnknownLabel => {
                "fix the label, or set the classes with --classes or --labels-from"
            }
            Self::EmptyLabel => {
                "label the sample or remove its line; use --allow empty-label if it shows none of \
                 the classes"
            }
            Self::NoImages => "add the images, or remove the line",
            Self::MissingChannel => "add the file, or remove the sample",
            Self::Unreadable => "fetch or export the file again",
            Self::SizeDiffers => "export all channels of the sample with the same size",
            Self::DuplicateSample => {
                "keep one: a split could put one into training and the other into validation"
            }
            Self::DuplicateImage => "replace the wrong file: one was copied or misnamed",
            Self::NoLabel => "add a line to train on it",
            Self::ConstantImage => "check the image: empty field, failed exposure or failed export",
            Self::UnusualSize => "check the image: all sizes are resized to the network's input",
            Self::DarkChannel => {
                "export it scaled to the full range: 12 bits in a 16-bit file are almost black"
            }
            Self::AbsentClass => "add samples, or remove the class",
            Self::RareClass => {
                "add samples, use a stratified split and data.sampler = \"balanced\""
            }
        }
    }
}

/// One problem of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub kind: ProblemKind,
    pub severity: Severity,
    /// Id of the sample; empty if the problem concerns no single sample.
    pub id: String,
    /// Path of the file; empty if the problem concerns no file.
    pub file: String,
    /// Description without id and file.
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
