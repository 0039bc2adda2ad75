// Features of the client matrix with sarama; see the README beside the client programs.
package main

import (
	"os"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"teeline/tests/clients/matrix/go/contract"
)

type saw = contract.Saw

func main() {
	features := map[string]func(*contract.Run) (saw, error){
		"transactions": transactions, "exactly-once": exactlyOnce, "consume": consume, "offsets": offsets,
		"group-classic": group, "topics": topics, "configs": configs, "acls": acls, "quotas": quotas, "groups": groups,
		"delete-records": deleteRecords, "cluster": cluster,
	}
	for feature, option := range producers {
		features[feature] = func(run *contract.Run) (saw, error) {
			return saw{"sent": contract.Records}, produce(run, feature, option)
		}
	}
	contract.Main(features)
}

var producers = map[string]func(*sarama.Config){
	"acks-0":     func(config *sarama.Config) { config.Producer.RequiredAcks = sarama.NoResponse },
	"acks-1":     func(config *sarama.Config) { config.Producer.RequiredAcks = sarama.WaitForLocal },
	"acks-all":   func(config *sarama.Config) { config.Producer.RequiredAcks = sarama.WaitForAll },
	"idempotent": idempotent,
	"gzip":       func(config *sarama.Config) { config.Producer.Compression = sarama.CompressionGZIP },
	"snappy":     func(config *sarama.Config) { config.Producer.Compression = sarama.CompressionSnappy },
	"lz4":        func(config *sarama.Config) { config.Producer.Compression = sarama.CompressionLZ4 },
	"zstd":       func(config *sarama.Config) { config.Producer.Compression = sarama.CompressionZSTD },
}

func idempotent(config *sarama.Config) {
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
}

func configuration(run *contract.Run) *sarama.Config {
	config := sarama.NewConfig()
	// Sarama must be told which broker it speaks to: it is the harness's to know.
	version, err := sarama.ParseKafkaVersion(os.Getenv("MATRIX_KAFKA_VERSION"))
	if err != nil {
		version = sarama.V2_8_2_0
	}
	config.Version = version
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.IsolationLevel = sarama.ReadCommitted
	if tls := run.TLS(); tls != nil {
		config.Net.TLS.Enable, config.Net.TLS.Config = true, tls
	}
	if run.Security.Mechanism != "" {
		config.Net.SASL.Enable = true
		config.Net.SASL.User, config.Net.SASL.Password = run.Security.Username, run.Security.Password
		config.Net.SASL.Mechanism = sarama.SASLMechanism(run.Security.Mechanism)
		config.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient {
			return &conversation{sha512: strings.HasSuffix(run.Security.Mechanism, "512")}
		}
	}
	return config
}

func open(run *contract.Run, options ...func(*sarama.Config)) (sarama.Client, error) {
	config := configuration(run)
	for _, option := range options {
		option(config)
	}
	return sarama.NewClient(strings.Split(run.Bootstrap, ","), config)
}

func messages(run *contract.Run, feature string, from, to int) []*sarama.ProducerMessage {
	var list []*sarama.ProducerMessage
	for index := from; index < to; index++ {
		list = append(list, &sarama.ProducerMessage{Topic: run.Topic(feature), Partition: int32(index % contract.Partitions),
			Key: sarama.ByteEncoder(contract.Key(index)), Value: sarama.ByteEncoder(contract.Value(feature, index)),
			Headers: []sarama.RecordHeader{{Key: []byte("n"), Value: []byte(strconv.Itoa(index))}}})
	}
	return list
}

func produce(run *contract.Run, feature string, option func(*sarama.Config)) error {
	client, err := open(run, option)
	if err != nil {
		return err
	}
	defer client.Close()
	producer, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return err
	}
	defer producer.Close()
	return producer.SendMessages(messages(run, feature, 0, contract.Records))
}

func transactional(run *contract.Run, id string) (sarama.Client, sarama.SyncProducer, error) {
	client, err := open(run, idempotent, func(config *sarama.Config) { config.Producer.Transaction.ID = id })
	if err != nil {
		return nil, nil, err
	}
	producer, err := sarama.NewSyncProducerFromClient(client)
	return client, producer, err
}

func transactions(run *contract.Run) (saw, error) {
	client, producer, err := transactional(run, run.Topic("transactions"))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	defer producer.Close()
	for round := range 3 {
		if err := producer.BeginTxn(); err != nil {
			return nil, err
		}
		if err := producer.SendMessages(messages(run, "transactions", round*10, round*10+10)); err != nil {
			return nil, err
		}
		end := producer.CommitTxn
		if round == 1 {
			end = producer.AbortTxn
		}
		if err := end(); err != nil {
			return nil, err
		}
	}
	return saw{"committed": 20}, nil
}

// conversation lends franz-go's SCRAM to sarama, which brings none of its own.
type conversation struct {
	sha512  bool
	session sasl.Session
	first   []byte
	begun   bool
	done    bool
}

func (c *conversation) Begin(user, password, _ string) error {
	auth := scram.Auth{User: user, Pass: password}
	mechanism := auth.AsSha256Mechanism()
	if c.sha512 {
		mechanism = auth.AsSha512Mechanism()
	}
	session, first, err := mechanism.Authenticate(nil, "")
	c.session, c.first = session, first
	return err
}

func (c *conversation) Step(challenge string) (string, error) {
	if !c.begun {
		c.begun = true
		return string(c.first), nil
	}
	done, answer, err := c.session.Challenge([]byte(challenge))
	c.done = done
	return string(answer), err
}

func (c *conversation) Done() bool { return c.done }
