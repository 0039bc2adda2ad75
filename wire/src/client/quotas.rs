//! How much clients may use: DescribeClientQuotas.

use std::collections::BTreeMap;

use kafka_protocol::messages::DescribeClientQuotasRequest;

use super::{ClientError, Cluster, ErrorCode};

/// The quotas of one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientQuota {
    /// Whom it is about, by type (`user`, `client-id`, `ip`); no name stands for the default of the type.
    pub entity: BTreeMap<String, Option<String>>,
    /// Limits by name, such as `producer_byte_rate`.
    pub values: BTreeMap<String, f64>,
}

impl Cluster {
    /// Every quota that is set. Needs DESCRIBE_CONFIGS on the cluster.
    pub async fn describe_client_quotas(&self) -> Result<Vec<ClientQuota>, ClientError> {
        // No component filters anything; not strict, so that entities of any type are shown.
        let request = DescribeClientQuotasRequest::default().with_strict(false);
        let connection = self.any_connection().await?;
        let timeout = self.config().endpoint.request_timeout;
        let response = connection.call(0..=1, &request, timeout).await?;
        let subject = || "describe the client quotas".to_owned();
        ErrorCode(response.error_code).check(subject, response.error_message.as_deref())?;
        let quota = |entry: kafka_protocol::messages::describe_client_quotas_response::EntryData| {
            let entity = entry.entity.into_iter().map(|part| {
                let name = part.entity_name.map(|name| name.to_string());
                (part.entity_type.to_string(), name)
            });
            let values = entry
                .values
                .into_iter()
                .map(|value| (value.key.to_string(), value.value));
            ClientQuota {
                entity: entity.collect(),
                values: values.collect(),
            }
        };
        Ok(response
            .entries
            .unwrap_or_default()
            .into_iter()
            .map(quota)
            .collect())
    }
}
