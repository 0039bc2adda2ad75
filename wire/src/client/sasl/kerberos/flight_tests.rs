//! KDCs that say nothing, or hang up.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use teeline_config::KerberosIdentity;

use super::super::testing::{keytab_of, krb5_conf};
use super::*;

/// A KDC that takes connections.
struct Kdc {
    kerberos: Kerberos,
    directory: PathBuf,
    connections: Arc<AtomicUsize>,
}

impl Kdc {
    fn start(name: &str, each: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("teeline-flight-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (conf, keytab) = (directory.join("krb5.conf"), directory.join("keytab"));
        std::fs::write(&conf, krb5_conf(port, "aes")).unwrap();
        std::fs::write(&keytab, keytab_of("me", &[(18, &[3; 32])])).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                each(stream);
            }
        });
        let kerberos = Kerberos {
            identity: KerberosIdentity::Keytab {
                principal: "me".to_owned(),
                keytab,
            },
            service_name: "kafka".to_owned(),
            configuration: vec![conf],
        };
        Self {
            kerberos,
            directory,
            connections,
        }
    }

    /// Takes connections, and says nothing on them.
    fn silent(name: &str) -> Self {
        let held = Mutex::new(Vec::new());
        Self::start(name, move |stream| held.lock().unwrap().push(stream))
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Kdc {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn within(time: Duration) -> Instant {
    Instant::now() + time
}

/// As the threads of a process that may block.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .unwrap()
}

const A_WHILE: Duration = Duration::from_secs(20);

#[test]
fn a_silent_kdc_takes_one_thread_from_all_who_wait() {
    let kdc = Kdc::silent("silent");
    runtime().block_on(async {
        let until = within(Duration::from_secs(2));
        let clients = join_all((0..64).map(|_| ticket(&kdc.kerberos, "broker", until)));
        let others = async {
            while kdc.connections() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::task::spawn_blocking(Instant::now).await.unwrap()
        };
        let (outcomes, ran_at) = tokio::join!(clients, others);
        assert!(ran_at < until, "other work waits for the KDC");
        assert!(outcomes.iter().all(Result::is_err));
        assert!(until.elapsed() < A_WHILE, "it ends in its time");
    });
    assert_eq!(kdc.connections(), 1);
}

#[test]
fn few_jobs_run_at_once_whatever_they_are_for() {
    let kdc = Kdc::silent("many");
    runtime().block_on(async {
        let until = within(Duration::from_secs(2));
        let hosts: Vec<_> = (0..24).map(|number| format!("broker-{number}")).collect();
        let outcomes = join_all(hosts.iter().map(|host| ticket(&kdc.kerberos, host, until))).await;
        assert!(outcomes.iter().all(Result::is_err));
    });
    assert!(kdc.connections() <= JOBS_MAX, "{}", kdc.connections());
}

#[test]
fn a_failure_is_remembered_for_a_moment() {
    let kdc = Kdc::start("closing", drop);
    runtime().block_on(async {
        let failed = ticket(&kdc.kerberos, "broker", within(A_WHILE))
            .await
            .unwrap_err();
        assert!(failed.to_string().contains("no KDC of R answers"), "{failed}");
        let since = Instant::now();
        let before = kdc.connections();
        let again = ticket(&kdc.kerberos, "broker", within(A_WHILE))
            .await
            .unwrap_err();
        // A machine that was busy for so long has forgotten it, rightly.
        if since.elapsed() < REMEMBERED / 2 {
            assert_eq!(kdc.connections(), before);
            assert_eq!(again.to_string(), failed.to_string());
        }
        let limit = within(A_WHILE);
        while kdc.connections() == before {
            assert!(Instant::now() < limit, "the KDC is never asked again");
            let _ = ticket(&kdc.kerberos, "broker", within(A_WHILE)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_job_ends_when_nobody_waits_for_it() {
    let (sender, ended) = std::sync::mpsc::channel();
    let kdc = Kdc::start("leaving", move |mut stream| {
        let mut said = Vec::new();
        // Comes to an end when the other side closes.
        let _ = stream.read_to_end(&mut said);
        let _ = sender.send(said.len());
    });
    runtime().block_on(async {
        let patient = within(Duration::from_secs(600));
        let asking = ticket(&kdc.kerberos, "broker", patient);
        let asked = async {
            while kdc.connections() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = asking => panic!("the KDC has said nothing"),
            () = asked => {}
        }
        let begun = Instant::now();
        let said = tokio::task::spawn_blocking(move || ended.recv_timeout(A_WHILE))
            .await
            .unwrap();
        assert!(said.unwrap() > 0);
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        // What nobody waited for is no failure.
        let next = ticket(&kdc.kerberos, "broker", within(Duration::from_millis(300))).await;
        assert!(next.is_err());
        assert!(kdc.connections() >= 2, "{}", kdc.connections());
    });
}

#[test]
fn those_who_are_told_to_end_are_not_joined() {
    let (patience, first) = Patience::new(within(A_WHILE));
    let second = patience.join(within(A_WHILE * 2)).unwrap();
    drop(first);
    assert!(patience.left().unwrap() > A_WHILE);
    drop(second);
    let third = patience.join(within(A_WHILE)).unwrap();
    assert!(patience.left().is_some());
    drop(third);
    assert!(patience.left().is_none());
    assert!(patience.join(within(A_WHILE)).is_none());
    assert!(patience.was_given_up());
}
