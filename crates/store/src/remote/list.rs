//! Listing of folders.

use std::mem;
use std::sync::Arc;

use object_store::ObjectMeta;
use object_store::list::PaginatedListOptions;

use super::super::{StoreError, StoreErrorKind};
use super::error_translator::{is_cut_off, status_of};
use super::fetch::wait_before;
use super::{StoreState, runtime};

/// Iterates over the names of the objects in a folder, subfolders excluded. Pages are requested
/// lazily.
#[derive(Debug)]
pub struct FileNames {
    shared: Arc<StoreState>,
    page: std::vec::IntoIter<String>,
    next: NextPage,
}

#[derive(Debug)]
enum NextPage {
    First,
    Token(String),
    End,
}

impl FileNames {
    pub(super) fn new(shared: Arc<StoreState>) -> Self {
        Self {
            shared,
            page: Vec::new().into_iter(),
            next: NextPage::First,
        }
    }
}

impl Iterator for FileNames {
    type Item = Result<String, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(name) = self.page.next() {
                return Some(Ok(name));
            }
            let token = match mem::replace(&mut self.next, NextPage::End) {
                NextPage::First => None,
                NextPage::Token(token) => Some(token),
                NextPage::End => return None,
            };
            match runtime::wait(self.shared.names(token)) {
                Ok((names, token)) => {
                    self.page = names.into_iter();
                    // Some stores end with an empty token.
                    let token = token.filter(|token| !token.is_empty());
                    self.next = token.map_or(NextPage::End, NextPage::Token);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl StoreState {
    /// Returns a page of names, and the token of the next page.
    async fn names(
        &self,
        token: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), StoreError> {
        let (objects, next) = if self.client.pages().is_some() {
            self.page(token, None).await?
        } else {
            (self.web_page().await?, None)
        };
        let names = objects.iter().filter_map(|object| self.name(object));
        Ok((names.map(str::to_owned).collect(), next))
    }

    /// Checks that the store responds: requests one name, or any page from a web server.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        if self.client.pages().is_some() {
            return self.page(None, Some(1)).await.map(drop);
        }
        match self.web_page().await {
            Err(StoreError {
                kind: StoreErrorKind::NoListing { .. },
                ..
            }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Returns a page of objects and the token of the next page.
    async fn page(
        &self,
        page_token: Option<String>,
        max_keys: Option<usize>,
    ) -> Result<(Vec<ObjectMeta>, Option<String>), StoreError> {
        let Some(pages) = self.client.pages() else {
            return Ok((Vec::new(), None));
        };
        let key = self.url.key();
        let prefix = (!key.is_empty()).then(|| format!("{key}/"));
        let options = PaginatedListOptions {
            delimiter: Some("/".into()),
            max_keys,
            page_token,
            ..PaginatedListOptions::default()
        };
        let mut tried = 0;
        loop {
            let page = pages.list_paginated(prefix.as_deref(), options.clone());
            match page.await {
                Ok(page) => return Ok((page.result.objects, page.page_token)),
                // `object_store` does not retry a listing that was cut off.
                Err(error) if is_cut_off(&error) && tried < self.options.retries => {
                    wait_before(tried).await;
                    tried += 1;
                }
                Err(error) => return Err(self.errors.error(&self.url, &error)),
            }
        }
    }

    /// Returns all objects of a web server, which lists them by `WebDAV` in one response, if at
    /// all.
    async fn web_page(&self) -> Result<Vec<ObjectMeta>, StoreError> {
        let path = object_store::path::Path::parse(self.url.key()).ok();
        let listed = self.client.store().list_with_delimiter(path.as_ref());
        let error = match listed.await {
            Ok(listed) => return Ok(listed.objects),
            Err(error) => error,
        };
        let explained = self.errors.error(&self.url, &error);
        // Servers without WebDAV respond with various errors.
        let unknown = match status_of(&error) {
            Some(401 | 403 | 408 | 429) => false,
            Some(status) => status == 501 || (400..500).contains(&status),
            None => matches!(explained.kind, StoreErrorKind::Response { .. }),
        };
        if !unknown {
            return Err(explained);
        }
        Err(StoreError {
            url: explained.url,
            kind: StoreErrorKind::NoListing {
                reason: explained.kind.to_string(),
            },
        })
    }

    /// Returns the last part of an object's key, if the object is directly in this folder.
    fn name<'a>(&self, object: &'a ObjectMeta) -> Option<&'a str> {
        let key = self.url.key();
        let rest = object.location.as_ref().strip_prefix(key)?;
        let name = if key.is_empty() {
            rest
        } else {
            rest.strip_prefix('/')?
        };
        // Web consoles create empty objects as folders.
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }
}
