//! GSSAPI: the client against brokers that take nothing else, with a real KDC.

use std::path::PathBuf;
use std::time::Instant;

use teeline_config::{Kerberos, KerberosIdentity, Sasl, Security};
use teeline_tests::kdc::{Maker, REALM};
use teeline_tests::wait::seconds;
use teeline_tests::workdir::WorkDir;
use teeline_wire::client::{ClientError, Cluster, NewTopic, OffsetAt, TopicPartition};

use crate::client::{ask_for, chain};
use crate::realm::{BROKER, CLIENT, Realm};
use crate::secured::{SESSION, impatient};

/// Known to the KDC and of no rights; a service too, but not the broker's.
const OTHER: &str = "log/localhost";
const TOPIC: &str = "kerberized";

impl Realm {
    fn by_keytab(&self, principal: &str) -> Kerberos {
        let keytab = self.kdc.keytab(principal);
        self.with(KerberosIdentity::Keytab {
            principal: format!("{principal}@{REALM}"),
            keytab,
        })
    }

    fn with(&self, identity: KerberosIdentity) -> Kerberos {
        Kerberos {
            identity,
            service_name: Kerberos::DEFAULT_SERVICE_NAME.to_owned(),
            configuration: vec![self.kdc.configuration()],
        }
    }

    async fn connect(&self, kerberos: Kerberos) -> Result<Cluster, ClientError> {
        let security = Security {
            tls: None,
            sasl: Some(Sasl::Gssapi(kerberos)),
        };
        Cluster::connect(impatient(&self.address(), security)).await
    }

    async fn accepted(&self, kerberos: Kerberos) -> Cluster {
        let what = format!("{kerberos:?}");
        let connected = self.connect(kerberos).await;
        connected.unwrap_or_else(|error| panic!("{what}: {}", chain(&error)))
    }

    async fn refused(&self, kerberos: Kerberos, parts: &[&str]) -> ClientError {
        let started = Instant::now();
        let error = self.connect(kerberos).await.unwrap_err();
        let text = chain(&error);
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(
            started.elapsed() < seconds(10),
            "{text} only after {:?}",
            started.elapsed()
        );
        error
    }
}

/// Everything there is about it, against one broker and one KDC: both take a while to start.
async fn speaks_kerberos(maker: Maker) {
    let mut realm = Realm::start(maker, &[OTHER]);
    let partition = TopicPartition::new(TOPIC, 0);
    let cluster = realm.accepted(realm.by_keytab(CLIENT)).await;
    let new = NewTopic {
        name: TOPIC.to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: Vec::new(),
    };
    // Only the right user may.
    cluster
        .create_topics(&[new], false)
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    let tickets = KerberosIdentity::TicketCache(realm.kdc.tickets(CLIENT));
    let by_tickets = realm.accepted(realm.with(tickets)).await;
    by_tickets
        .list_offset(&partition, OffsetAt::Latest)
        .await
        .unwrap();
    let stranger = realm.accepted(realm.by_keytab(OTHER)).await;
    let error = stranger
        .list_offset(&partition, OffsetAt::Latest)
        .await
        .unwrap_err();
    assert!(
        error.code().is_some(),
        "authenticated, but without rights: {}",
        chain(&error)
    );

    who_is_not_who_they_say_is_told_why(&realm).await;

    // Sessions are renewed; and connections made, by the tickets that there are, while no KDC answers.
    realm.kdc.kill();
    assert!(ask_for(&cluster, &partition, SESSION * 2 + SESSION / 2).await > 100);
    realm.accepted(realm.by_keytab(CLIENT)).await;
    let error = realm
        .refused(realm.by_keytab(BROKER), &["no KDC", "refused"])
        .await;
    assert!(error.is_retriable(), "a KDC may come back: {}", chain(&error));
}

async fn who_is_not_who_they_say_is_told_why(realm: &Realm) {
    let work = WorkDir::create("keys");
    let mut content = std::fs::read(realm.kdc.keytab(CLIENT)).unwrap();
    // Every key's last bytes stand before what ends an entry.
    let forged = work.join("forged.keytab");
    for place in key_ends(&content) {
        content[place] ^= 1;
    }
    std::fs::write(&forged, content).unwrap();
    let keytab = |principal: &str, keytab: PathBuf| {
        let principal = principal.to_owned();
        realm.with(KerberosIdentity::Keytab { principal, keytab })
    };
    // Not the ticket that is kept from before: the keytab is another.
    let error = realm
        .refused(keytab(CLIENT, forged), &["GSSAPI", "refuses"])
        .await;
    assert!(matches!(error, ClientError::Authentication { .. }) && !error.is_retriable());
    let nobody = keytab("nobody", realm.kdc.keytab(CLIENT));
    realm
        .refused(nobody, &["set up SASL", "has no key of nobody@"])
        .await;
    let other = Kerberos {
        service_name: "other".to_owned(),
        ..realm.by_keytab(CLIENT)
    };
    let reason = "asked for other/localhost refuses: it does not know the service's principal";
    realm.refused(other, &[reason]).await;
    // A ticket for a service that the broker is not: its key is another.
    let impostor = Kerberos {
        service_name: "log".to_owned(),
        ..realm.by_keytab(CLIENT)
    };
    realm
        .refused(impostor, &["authenticate to broker", "GSSAPI"])
        .await;
    let unknown = keytab("teeline@ELSEWHERE", realm.kdc.keytab(CLIENT));
    realm.refused(unknown, &["has no key of teeline@ELSEWHERE"]).await;
    let nowhere = Kerberos {
        configuration: vec![work.join("krb5.conf")],
        ..realm.by_keytab(CLIENT)
    };
    realm.refused(nowhere, &["krb5.conf", "No such file"]).await;
    let missing = realm.with(KerberosIdentity::TicketCache(work.join("tickets")));
    realm.refused(missing, &["tickets", "No such file"]).await;
}

/// Where the last byte of each key is, in a keytab whose entries end in a version of four bytes.
fn key_ends(content: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut place = 2;
    while let Some(size) = content.get(place..place + 4) {
        let size = i32::from_be_bytes(size.try_into().unwrap());
        place += 4 + size.unsigned_abs() as usize;
        if size > 0 {
            places.push(place - 5);
        }
    }
    places
}

#[tokio::test]
async fn brokers_that_take_only_kerberos_are_spoken_to() {
    speaks_kerberos(Maker::Kerby).await;
}

#[tokio::test]
#[ignore = "fetches MIT Kerberos from Debian's packages, which needs apt-get: run it with --ignored"]
async fn brokers_that_take_only_kerberos_are_spoken_to_by_tickets_of_mits_kdc() {
    speaks_kerberos(Maker::Mit).await;
}
