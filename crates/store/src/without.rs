//! Stores in a program that was built without them: there are none, as no URL is accepted.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{ReadFailure, StoreError, StoreErrorKind, StoreOptions, Url};

/// Nothing is of this type. It is private, so that code which would never run compiles without a
/// warning elsewhere.
#[derive(Debug, Clone)]
enum Nothing {}

/// Access to one URL, which cannot be.
#[derive(Debug, Clone)]
pub struct Store(Nothing);

/// The names in a folder, which cannot be.
#[derive(Debug)]
pub struct FileNames(Nothing);

impl Iterator for FileNames {
    type Item = Result<String, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0 {}
    }
}

/// A version of an object, which cannot be.
#[derive(Debug, Clone)]
pub struct ObjectVersion(Nothing);

/// Reads files ahead, which cannot be.
#[derive(Debug)]
pub struct ReadAhead(Nothing);

impl Store {
    /// # Errors
    ///
    /// Always.
    pub fn open(url: &Url, _: &StoreOptions) -> Result<Self, StoreError> {
        let said = "this rgby was built without the feature `remote`".into();
        Err(StoreError::new(url, StoreErrorKind::Unreachable { said }))
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn url(&self) -> &Url {
        match self.0 {}
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn folder(&self, _: &str) -> Self {
        match self.0 {}
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn list(&self) -> FileNames {
        match self.0 {}
    }

    #[allow(missing_docs, clippy::missing_errors_doc)]
    pub fn get(&self, _: &str, _: u64) -> Result<(Vec<u8>, ObjectVersion), StoreError> {
        match self.0 {}
    }

    #[allow(missing_docs, clippy::missing_errors_doc)]
    pub fn put_file(&self, _: &str, _: &std::path::Path) -> Result<(), StoreError> {
        match self.0 {}
    }

    #[allow(missing_docs, clippy::missing_errors_doc)]
    pub fn create(&self, _: &str, _: Vec<u8>) -> Result<ObjectVersion, StoreError> {
        match self.0 {}
    }

    #[allow(missing_docs, clippy::missing_errors_doc)]
    pub fn update(
        &self,
        _: &str,
        _: Vec<u8>,
        _: &ObjectVersion,
    ) -> Result<ObjectVersion, StoreError> {
        match self.0 {}
    }

    #[allow(missing_docs, clippy::missing_errors_doc)]
    pub fn delete(&self, _: &str) -> Result<(), StoreError> {
        match self.0 {}
    }
}

impl ReadAhead {
    #[allow(missing_docs)]
    #[must_use]
    pub fn new(store: &Store, _: Arc<AtomicBool>) -> Self {
        match store.0 {}
    }

    #[allow(missing_docs)]
    pub fn want<'a>(&self, _: impl Iterator<Item = &'a str>, _: u64) {
        match self.0 {}
    }

    #[allow(missing_docs)]
    pub fn expect<'a>(&self, _: impl Iterator<Item = &'a str>, _: u64) {
        match self.0 {}
    }

    #[allow(missing_docs)]
    pub fn forget<'a>(&self, _: impl Iterator<Item = &'a str>) {
        match self.0 {}
    }

    #[allow(missing_docs, clippy::missing_errors_doc)]
    pub fn read(&self, _: &str, _: u64, _: &mut Vec<u8>) -> Result<(), ReadFailure> {
        match self.0 {}
    }
}
