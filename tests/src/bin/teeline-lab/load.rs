//! Producing under the eyes of the reader, until the plug is pulled.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use teeline_tests::admin_port;
use teeline_tests::driver::ProducerConfig;
use teeline_tests::kafka::Kafka;
use teeline_tests::nasty::now_ms;
use teeline_tests::programs::Proxy;
use teeline_tests::record::{Sent, read_load_log};
use teeline_tests::wait::{seconds, wait_for};

use crate::demo::{EVENT_STEP_MS, Lab, PARTITIONS, RECORDS, TOPICS};
use crate::display::{directory_bytes, grouped, megabytes};

/// What the producers did and were told.
pub(crate) struct Produced {
    pub(crate) sent: BTreeMap<&'static str, Vec<Sent>>,
    pub(crate) acknowledged: u64,
    pub(crate) bytes: u64,
    pub(crate) first_timestamp: i64,
    pub(crate) seconds: f64,
    pub(crate) unarchived_seconds: f64,
}

impl Lab {
    pub(crate) fn produce(&mut self, proxy: &mut Proxy, source: &mut Kafka) -> Produced {
        self.display.step(&format!(
            "Produce {} JSON events through the proxy, and pull the plug",
            grouped(RECORDS)
        ));
        let bootstrap = self.settings.bootstrap();
        let topics: Vec<Value> = TOPICS
            .iter()
            .map(|(name, ..)| json!({"name": name, "partitions": PARTITIONS}))
            .collect();
        self.java.create_topics(&bootstrap, &Value::from(topics));
        for (topic, _, about) in TOPICS {
            self.display.note(&format!("{topic}: {about}"));
        }
        let first_timestamp = now_ms() - 12 * 3_600_000;
        let logs = TOPICS.map(|(topic, rate, _)| (topic, self.start_load(topic, rate, first_timestamp)));
        let started = Instant::now();
        let (acknowledged, unarchived_seconds) = self.watch_load(proxy, started);
        // In the middle of everything, without a word: first the proxy, then the cluster, for good.
        proxy.kill();
        source.kill();
        let seconds = started.elapsed().as_secs_f64();
        self.display
            .note("SIGKILL: the proxy is dead, the source cluster is dead, and it will not come back");
        let mut bytes = 0;
        for (topic, ..) in TOPICS {
            bytes += self.java.stop_load(topic, 0)["bytes"].as_u64().expect("a count");
        }
        let sent: BTreeMap<_, _> = logs
            .into_iter()
            .map(|(topic, log)| (topic, read_load_log(&log)))
            .collect();
        Produced {
            sent,
            acknowledged,
            bytes,
            first_timestamp,
            seconds,
            unarchived_seconds,
        }
    }

    fn start_load(&self, topic: &str, rate: u32, first_timestamp: i64) -> PathBuf {
        let mut config = vec![
            ("acks", "all"),
            ("linger.ms", "10"),
            ("delivery.timeout.ms", "120000"),
            ("max.block.ms", "5000"),
        ];
        let mut settings = json!({"shape": topic, "rate": rate, "partitions": PARTITIONS, "seed": 1,
            "first_timestamp": first_timestamp, "step_ms": EVENT_STEP_MS});
        match topic {
            "clicks" => config.push(("compression.type", "lz4")),
            "payments" => {
                config.push(("transactional.id", "payments"));
                settings["transaction_records"] = json!(100);
                settings["abort_every"] = json!(5);
            }
            _ => config.push(("compression.type", "zstd")),
        }
        self.java.start_load(
            topic,
            &self.settings.bootstrap(),
            topic,
            &ProducerConfig::of(&config),
            settings,
        )
    }

    /// Shows the live line until enough is acknowledged.
    fn watch_load(&mut self, proxy: &mut Proxy, started: Instant) -> (u64, f64) {
        let archive = self.directory.join("archive");
        let mut speed = Speed::default();
        let mut unarchived: f64 = 0.0;
        let admin = self.settings.admin();
        let (mut line, mut acknowledged) = (String::new(), 0);
        wait_for("the load to be acknowledged", seconds(100), || {
            proxy.process.assert_running();
            acknowledged = TOPICS
                .iter()
                .map(|(topic, ..)| self.java.acknowledged(topic))
                .sum();
            let captured = admin_port::metric(&admin, "teeline_captured_bytes_total").unwrap_or(0.0);
            unarchived =
                unarchived.max(admin_port::metric(&admin, "teeline_unarchived_seconds").unwrap_or(0.0));
            line = format!(
                "{:5.1} s   {:>7} records/s   {:>8} acknowledged   {:>9} captured   {:>8} in the archive",
                started.elapsed().as_secs_f64(),
                grouped(speed.after(acknowledged)),
                grouped(acknowledged),
                megabytes(captured as u64),
                megabytes(directory_bytes(&archive))
            );
            self.display.live(&line);
            if acknowledged >= RECORDS {
                Ok(())
            } else {
                Err(format!("{acknowledged} so far"))
            }
        });
        self.display.end_live(&line);
        (acknowledged, unarchived)
    }
}

/// Records per second over the last second or so.
#[derive(Default)]
struct Speed(Vec<(Instant, u64)>);

impl Speed {
    fn after(&mut self, count: u64) -> u64 {
        let now = Instant::now();
        self.0.push((now, count));
        self.0
            .retain(|(at, _)| now.duration_since(*at) < Duration::from_millis(1_500));
        let Some((first_at, first)) = self.0.first() else {
            return 0;
        };
        let elapsed = now.duration_since(*first_at).as_secs_f64();
        if elapsed > 0.1 {
            ((count - first) as f64 / elapsed) as u64
        } else {
            0
        }
    }
}
