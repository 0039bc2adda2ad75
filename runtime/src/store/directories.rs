//! Directories of a filesystem store: that the way to an object is durable, too.
//!
//! The store beneath syncs an object, the directory that holds it, and the directories that it created in the same
//! call. Two gaps are left, both after a crash of this process that the host survived for a while: a directory
//! that was created but not yet synced looks, to the next process, like one that was always there; and an object
//! whose name was not yet synced is found by a listing, is relied upon, and is gone when the host loses power.
//! Here is what closes them: a process syncs the way to each directory once before it calls an object in it durable,
//! and what a listing shows is made durable before it is shown.

use std::collections::HashSet;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path;

use crate::fs::{FsError, sync_dir};

#[derive(Debug)]
pub(super) struct Directories {
    root: PathBuf,
    /// Directories whose own names are known to be durable. As many as the archive has directories.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Directories {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            durable: Mutex::default(),
        }
    }

    /// Makes the way to an object durable; its own name already is.
    pub(super) async fn settle_way(self: &Arc<Self>, object: &Path) -> Result<(), FsError> {
        let Some(unsettled) = self.unsettled(object) else {
            return Ok(());
        };
        self.sync(unsettled, None).await
    }

    /// Makes durable the names of all objects in the directory of this one, and the way to it.
    pub(super) async fn settle(self: &Arc<Self>, object: &Path) -> Result<(), FsError> {
        let unsettled = self.unsettled(object).unwrap_or_default();
        let dir = self.directory_of(object);
        self.sync(unsettled, Some(dir)).await
    }

    pub(super) fn directory_of(&self, object: &Path) -> PathBuf {
        let mut path = self.root.clone();
        path.extend(object.parts().map(|part| part.as_ref().to_owned()));
        path.parent().unwrap_or(&self.root).to_owned()
    }

    /// The directories on the way whose names are not known to be durable.
    fn unsettled(&self, object: &Path) -> Option<Vec<PathBuf>> {
        let dir = self.directory_of(object);
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let on_the_way = dir
            .ancestors()
            .take_while(|dir| *dir != self.root && dir.starts_with(&self.root));
        let unsettled: Vec<PathBuf> = on_the_way
            .filter(|dir| !durable.contains(*dir))
            .map(FsPath::to_owned)
            .collect();
        (!unsettled.is_empty()).then_some(unsettled)
    }

    async fn sync(self: &Arc<Self>, unsettled: Vec<PathBuf>, also: Option<PathBuf>) -> Result<(), FsError> {
        let this = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            for dir in &unsettled {
                sync_dir(crate::fs::parent_of(dir))?;
            }
            if let Some(dir) = also {
                sync_dir(&dir)?;
            }
            // Only now: after an error the next one tries again.
            this.durable
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(unsettled);
            Ok(())
        });
        match task.await {
            Ok(result) => result,
            // The task does not panic and is not aborted; a runtime that ends takes the caller with it.
            Err(error) => Err(FsError {
                action: "sync directories of",
                path: self.root.clone(),
                source: std::io::Error::other(error),
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_directory_on_the_way_is_synced_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        let directories = Arc::new(Directories::new(root.path().to_owned()));
        let object = Path::parse("a/b/c/object").unwrap();
        let expected = ["a/b/c", "a/b", "a"].map(|dir| root.path().join(dir));
        assert_eq!(directories.unsettled(&object), Some(expected.to_vec()));
        directories.settle_way(&object).await.unwrap();
        assert_eq!(directories.unsettled(&object), None);
        let sibling = Path::parse("a/b/d/object").unwrap();
        assert_eq!(
            directories.unsettled(&sibling),
            Some(vec![root.path().join("a/b/d")])
        );
        assert_eq!(directories.unsettled(&Path::parse("object").unwrap()), None);
    }

    #[tokio::test]
    async fn a_directory_that_could_not_be_synced_is_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let directories = Arc::new(Directories::new(root.path().to_owned()));
        let object = Path::parse("gone/below/object").unwrap();
        assert!(directories.settle(&object).await.is_err());
        assert!(directories.unsettled(&object).is_some());
    }
}
