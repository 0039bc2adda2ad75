//! Transparent Kafka proxy that captures what producers write.
