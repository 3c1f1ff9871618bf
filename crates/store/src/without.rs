//! Stand-ins for the types of `remote` in a build without it. They cannot be constructed, because
//! no URL is accepted.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{ReadFailure, StoreError, StoreErrorKind, StoreOptions, Url};

/// A type without values. It is private, so that code that never runs compiles without warnings.
#[derive(Debug, Clone)]
enum Uninhabited {}

#[derive(Debug, Clone)]
pub struct Store(Uninhabited);

#[derive(Debug)]
pub struct FileNames(Uninhabited);

impl Iterator for FileNames {
    type Item = Result<String, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0 {}
    }
}

#[derive(Debug, Clone)]
pub struct ObjectVersion(Uninhabited);

#[derive(Debug)]
pub struct ReadAhead(Uninhabited);

impl Store {
    /// # Errors
    ///
    /// Always.
    pub fn open(url: &Url, _: &StoreOptions) -> Result<Self, StoreError> {
        let reason = "this rgby was built without the feature `remote`".into();
        Err(StoreError::new(url, StoreErrorKind::Unreachable { reason }))
    }

    #[must_use]
    pub fn url(&self) -> &Url {
        match self.0 {}
    }

    #[must_use]
    pub fn folder(&self, _: &str) -> Self {
        match self.0 {}
    }

    #[must_use]
    pub fn list(&self) -> FileNames {
        match self.0 {}
    }

    #[allow(clippy::missing_errors_doc)]
    pub fn get(&self, _: &str, _: u64) -> Result<(Vec<u8>, ObjectVersion), StoreError> {
        match self.0 {}
    }

    #[allow(clippy::missing_errors_doc)]
    pub fn put_file(&self, _: &str, _: &std::path::Path) -> Result<(), StoreError> {
        match self.0 {}
    }

    #[allow(clippy::missing_errors_doc)]
    pub fn create(&self, _: &str, _: Vec<u8>) -> Result<ObjectVersion, StoreError> {
        match self.0 {}
    }

    #[allow(clippy::missing_errors_doc)]
    pub fn update(
        &self,
        _: &str,
        _: Vec<u8>,
        _: &ObjectVersion,
    ) -> Result<ObjectVersion, StoreError> {
        match self.0 {}
    }

    #[allow(clippy::missing_errors_doc)]
    pub fn delete(&self, _: &str) -> Result<(), StoreError> {
        match self.0 {}
    }
}

impl ReadAhead {
    #[must_use]
    pub fn new(store: &Store, _: Arc<AtomicBool>) -> Self {
        match store.0 {}
    }

    pub fn want<'a>(&self, _: impl Iterator<Item = &'a str>, _: u64) {
        match self.0 {}
    }

    pub fn expect<'a>(&self, _: impl Iterator<Item = &'a str>, _: u64) {
        match self.0 {}
    }

    pub fn forget<'a>(&self, _: impl Iterator<Item = &'a str>) {
        match self.0 {}
    }

    #[allow(clippy::missing_errors_doc)]
    pub fn read(&self, _: &str, _: u64, _: &mut Vec<u8>) -> Result<(), ReadFailure> {
        match self.0 {}
    }
}
