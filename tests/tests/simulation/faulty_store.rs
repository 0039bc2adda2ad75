//! An object store in memory whose requests fail before or after they took effect, or take effect long after they failed.
//!
//! Every request stops twice, before and after its effect: whoever polls the clients decides in which order all of them go
//! on, and may drop a client in between. A listing looks several times, as a directory does that is read while files come.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many times a listing looks.
const LOOKS: u64 = 3;

#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    objects: Arc<InMemory>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug)]
struct Faults {
    random: StdRng,
    /// Of a thousand requests, so many fail.
    per_mille: u32,
    /// Writes replace what is there, whatever they ask for.
    is_forgetful: bool,
    /// Writes that have failed for their writers and are still on their way.
    late: Vec<(Path, PutPayload, PutOptions)>,
}

enum Fate {
    Well,
    NotDone,
    AnswerLost,
    Late,
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty store")
    }
}

impl FaultyStore {
    pub(crate) fn new(seed: u64, per_mille: u32) -> FaultyStore {
        FaultyStore {
            objects: Arc::new(InMemory::new()),
            faults: Arc::new(Mutex::new(Faults {
                random: StdRng::seed_from_u64(seed),
                per_mille,
                is_forgetful: false,
                late: Vec::new(),
            })),
        }
    }

    /// From here on conditions are ignored.
    pub(crate) fn forget_conditions(&self) {
        self.faults.lock().unwrap().is_forgetful = true;
    }

    /// One of the late writes arrives, if there is one.
    pub(crate) fn arrive(&self) {
        let mut faults = self.faults.lock().unwrap();
        if faults.late.is_empty() {
            return;
        }
        let count = faults.late.len();
        let which = faults.random.random_range(0..count);
        let (path, payload, options) = faults.late.swap_remove(which);
        // Nobody hears whether it was taken.
        let arrived = self.objects.put_opts(&path, payload, options).now_or_never();
        drop(arrived.expect("memory does not wait"));
    }

    /// From here on nothing fails, and nothing is on its way any more.
    pub(crate) fn heal(&self) {
        while !self.faults.lock().unwrap().late.is_empty() {
            self.arrive();
        }
        self.faults.lock().unwrap().per_mille = 0;
    }

    fn fate(&self) -> Fate {
        let mut faults = self.faults.lock().unwrap();
        let per_mille = faults.per_mille;
        match faults.random.random_range(0..1_000) < per_mille {
            false => Fate::Well,
            true => match faults.random.random_range(0..3) {
                0 => Fate::NotDone,
                1 => Fate::AnswerLost,
                _ => Fate::Late,
            },
        }
    }

    /// A request that changes nothing.
    async fn look<T>(&self, path: &str, request: impl Future<Output = Result<T>>) -> Result<T> {
        turn().await;
        let result = request.await;
        turn().await;
        match self.fate() {
            Fate::Well => result,
            _ => Err(failed(path)),
        }
    }
}

/// Lets others go on.
async fn turn() {
    let mut had_it = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut had_it, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Not one of the errors that the client repeats by itself, with pauses that nobody here wants to wait for.
fn failed(path: &str) -> Error {
    Error::PermissionDenied {
        path: path.to_owned(),
        source: "the simulation says no".into(),
    }
}

fn look_of(meta: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    meta.location.as_ref().hash(&mut hasher);
    hasher.finish() % LOOKS
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        turn().await;
        if self.faults.lock().unwrap().is_forgetful {
            options.mode = PutMode::Overwrite;
        }
        match self.fate() {
            Fate::Well => {
                let put = self.objects.put_opts(path, payload, options).await;
                turn().await;
                put
            }
            Fate::NotDone => Err(failed(path.as_ref())),
            Fate::AnswerLost => {
                let _ = self.objects.put_opts(path, payload, options).await;
                turn().await;
                Err(failed(path.as_ref()))
            }
            Fate::Late => {
                self.faults
                    .lock()
                    .unwrap()
                    .late
                    .push((path.clone(), payload, options));
                Err(failed(path.as_ref()))
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.look(path.as_ref(), self.objects.get_opts(path, options))
            .await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let looks = futures_util::stream::iter(0..LOOKS).then(move |look| {
            let (store, prefix) = (store.clone(), prefix.clone());
            async move {
                let all = store.objects.list(prefix.as_ref()).try_collect::<Vec<_>>();
                let found = store.look("a listing", all).await;
                let found: Vec<Result<ObjectMeta>> = match found {
                    Ok(found) => found
                        .into_iter()
                        .filter(|meta| look_of(meta) == look)
                        .map(Ok)
                        .collect(),
                    Err(error) => vec![Err(error)],
                };
                futures_util::stream::iter(found)
            }
        });
        looks.flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.look("a listing", self.objects.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
