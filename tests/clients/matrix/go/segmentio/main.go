// Features of the client matrix with segmentio/kafka-go; see the README beside the client programs.
package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"teeline/tests/clients/matrix/go/contract"
)

type saw = contract.Saw

func main() {
	features := map[string]func(*contract.Run) (saw, error){
		"consume": consume, "offsets": offsets, "group-classic": group, "topics": topics, "configs": configs,
		"acls": acls, "quotas": quotas, "groups": groups, "cluster": cluster,
	}
	for feature, option := range producers {
		features[feature] = func(run *contract.Run) (saw, error) {
			return saw{"sent": contract.Records}, produce(run, feature, option)
		}
	}
	contract.Main(features)
}

var producers = map[string]func(*kafka.Writer){
	"acks-0":   func(writer *kafka.Writer) { writer.RequiredAcks = kafka.RequireNone },
	"acks-1":   func(writer *kafka.Writer) { writer.RequiredAcks = kafka.RequireOne },
	"acks-all": func(writer *kafka.Writer) { writer.RequiredAcks = kafka.RequireAll },
	"gzip":     func(writer *kafka.Writer) { writer.Compression = compress.Gzip },
	"snappy":   func(writer *kafka.Writer) { writer.Compression = compress.Snappy },
	"lz4":      func(writer *kafka.Writer) { writer.Compression = compress.Lz4 },
	"zstd":     func(writer *kafka.Writer) { writer.Compression = compress.Zstd },
}

func mechanism(run *contract.Run) (sasl.Mechanism, error) {
	user, password := run.Security.Username, run.Security.Password
	switch run.Security.Mechanism {
	case "PLAIN":
		return plain.Mechanism{Username: user, Password: password}, nil
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, user, password)
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, user, password)
	default:
		return nil, nil
	}
}

func transport(run *contract.Run) (*kafka.Transport, error) {
	mechanism, err := mechanism(run)
	return &kafka.Transport{TLS: run.TLS(), SASL: mechanism, MetadataTTL: time.Second}, err
}

func dialer(run *contract.Run) (*kafka.Dialer, error) {
	mechanism, err := mechanism(run)
	return &kafka.Dialer{TLS: run.TLS(), SASLMechanism: mechanism, Timeout: contract.Patience}, err
}

func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), contract.Patience)
}

func produce(run *contract.Run, feature string, option func(*kafka.Writer)) error {
	transport, err := transport(run)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	writer := &kafka.Writer{Addr: kafka.TCP(strings.Split(run.Bootstrap, ",")...), Topic: run.Topic(feature),
		Transport: transport, BatchTimeout: 10 * time.Millisecond, RequiredAcks: kafka.RequireAll}
	writer.Balancer = kafka.BalancerFunc(func(message kafka.Message, _ ...int) int { return message.WriterData.(int) })
	option(writer)
	defer writer.Close()
	var list []kafka.Message
	for index := range contract.Records {
		list = append(list, kafka.Message{Key: contract.Key(index), Value: contract.Value(feature, index),
			Headers: []kafka.Header{{Key: "n", Value: []byte(strconv.Itoa(index))}}, WriterData: index % contract.Partitions})
	}
	ctx, cancel := patient()
	defer cancel()
	return writer.WriteMessages(ctx, list...)
}

func consume(run *contract.Run) (saw, error) {
	dialer, err := dialer(run)
	if err != nil {
		return nil, err
	}
	lines := contract.Lines{}
	ctx, cancel := patient()
	defer cancel()
	for partition := range contract.Partitions {
		reader := kafka.NewReader(kafka.ReaderConfig{Brokers: strings.Split(run.Bootstrap, ","), Topic: contract.Common,
			Partition: partition, Dialer: dialer, MaxWait: 200 * time.Millisecond})
		for range contract.CommonRecords / contract.Partitions {
			message, err := reader.ReadMessage(ctx)
			if err != nil {
				reader.Close()
				return nil, err
			}
			lines.Add(int32(message.Partition), message.Offset, message.Key, message.Value)
		}
		reader.Close()
	}
	return saw{"records": len(lines), "sha256": lines.Digest()}, nil
}

func group(run *contract.Run) (saw, error) {
	name := run.Topic("group-classic")
	dialer, err := dialer(run)
	if err != nil {
		return nil, err
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: strings.Split(run.Bootstrap, ","), GroupID: name,
		Topic: contract.Common, Dialer: dialer, MaxWait: 200 * time.Millisecond, StartOffset: kafka.FirstOffset})
	ctx, cancel := patient()
	defer cancel()
	lines := contract.Lines{}
	var read []kafka.Message
	for len(lines) < contract.CommonRecords {
		message, err := reader.FetchMessage(ctx)
		if err != nil {
			reader.Close()
			return nil, err
		}
		lines.Add(int32(message.Partition), message.Offset, message.Key, message.Value)
		read = append(read, message)
	}
	err = reader.CommitMessages(ctx, read...)
	reader.Close()
	if err != nil {
		return nil, err
	}
	sum, err := committed(run, name)
	return saw{"records": len(lines), "committed": sum}, err
}
