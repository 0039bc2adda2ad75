//! A realm, and a broker in it that takes nothing but its tickets.

use teeline_tests::kafka::Kafka;
use teeline_tests::kdc::{Kdc, Maker, REALM};

use crate::secured::SESSION;

pub(crate) const BROKER: &str = "kafka/localhost";
pub(crate) const CLIENT: &str = "teeline";

pub(crate) struct Realm {
    pub(crate) kdc: Kdc,
    pub(crate) kafka: Kafka,
}

impl Realm {
    /// With the broker, a client who may do anything, and `others`.
    pub(crate) fn start(maker: Maker, others: &[&str]) -> Self {
        let kdc = Kdc::start(maker, &[&[BROKER, CLIENT], others].concat());
        let properties = PROPERTIES
            .replace("{realm}", REALM)
            .replace("{keytab}", &kdc.keytab(BROKER).display().to_string())
            .replace("{session}", &SESSION.as_millis().to_string());
        let mut kafka = Kafka::prepare_with(1, &properties, &[]);
        kafka.jvm_option(&jvm_option(&kdc));
        kafka.start_all();
        Self { kdc, kafka }
    }

    /// By the name that stands in the broker's principal.
    pub(crate) fn address(&self) -> String {
        self.kafka.address(4).replace("127.0.0.1", "localhost")
    }
}

/// How a JVM finds the realm.
pub(crate) fn jvm_option(kdc: &Kdc) -> String {
    format!("-Djava.security.krb5.conf={}", kdc.configuration().display())
}

const PROPERTIES: &str = "\
listeners=PLAINTEXT://{address 0},CONTROLLER://{address 10},SASL_PLAINTEXT://{address 4}
advertised.listeners=PLAINTEXT://{address 0},SASL_PLAINTEXT://localhost:{port 4}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:teeline
sasl.kerberos.service.name=kafka
listener.name.sasl_plaintext.sasl.enabled.mechanisms=GSSAPI
listener.name.sasl_plaintext.gssapi.connections.max.reauth.ms={session}
listener.name.sasl_plaintext.gssapi.sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true keyTab=\"{keytab}\" principal=\"kafka/localhost@{realm}\";
";
