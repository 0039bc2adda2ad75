// Features of the client matrix with franz-go; see the README beside the client programs.
package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"teeline/tests/clients/matrix/go/contract"
)

type saw = contract.Saw

func main() {
	features := map[string]func(*contract.Run) (saw, error){
		"transactions": transactions, "exactly-once": exactlyOnce, "consume": consume, "offsets": offsets,
		"group-classic":  func(run *contract.Run) (saw, error) { return group(run, "group-classic") },
		"group-next-gen": func(run *contract.Run) (saw, error) { return group(run, "group-next-gen", kgo.ServerSideBalancer()) },
		"share-group":    share, "topics": topics, "configs": configs, "acls": acls, "quotas": quotas,
		"groups": groups, "delete-records": deleteRecords, "cluster": cluster,
	}
	for feature, options := range producers {
		features[feature] = func(run *contract.Run) (saw, error) {
			err := produce(run, feature, options...)
			return saw{"sent": contract.Records}, err
		}
	}
	contract.Main(features)
}

var producers = map[string][]kgo.Opt{
	"acks-0":     {kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()},
	"acks-1":     {kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
	"acks-all":   {kgo.DisableIdempotentWrite()},
	"idempotent": {},
	"gzip":       {kgo.ProducerBatchCompression(kgo.GzipCompression())},
	"snappy":     {kgo.ProducerBatchCompression(kgo.SnappyCompression())},
	"lz4":        {kgo.ProducerBatchCompression(kgo.Lz4Compression())},
	"zstd":       {kgo.ProducerBatchCompression(kgo.ZstdCompression())},
}

func open(run *contract.Run, options ...kgo.Opt) (*kgo.Client, error) {
	all := []kgo.Opt{kgo.SeedBrokers(strings.Split(run.Bootstrap, ",")...),
		kgo.RecordDeliveryTimeout(contract.Patience), kgo.RetryTimeout(contract.Patience)}
	if config := run.TLS(); config != nil {
		all = append(all, kgo.DialTLSConfig(config))
	}
	user, password := run.Security.Username, run.Security.Password
	switch run.Security.Mechanism {
	case "PLAIN":
		all = append(all, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
	case "SCRAM-SHA-512":
		all = append(all, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
	case "SCRAM-SHA-256":
		all = append(all, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()))
	}
	return kgo.NewClient(append(all, options...)...)
}

func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), contract.Patience)
}

func records(run *contract.Run, feature string, from, to int) []*kgo.Record {
	var list []*kgo.Record
	for index := from; index < to; index++ {
		list = append(list, &kgo.Record{Topic: run.Topic(feature), Partition: int32(index % contract.Partitions),
			Key: contract.Key(index), Value: contract.Value(feature, index),
			Headers: []kgo.RecordHeader{{Key: "n", Value: []byte(strconv.Itoa(index))}}})
	}
	return list
}

func produce(run *contract.Run, feature string, options ...kgo.Opt) error {
	client, err := open(run, append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := patient()
	defer cancel()
	return client.ProduceSync(ctx, records(run, feature, 0, contract.Records)...).FirstErr()
}

func transactions(run *contract.Run) (saw, error) {
	client, err := open(run, kgo.TransactionalID(run.Topic("transactions")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := patient()
	defer cancel()
	for round := range 3 {
		if err := client.BeginTransaction(); err != nil {
			return nil, err
		}
		if err := client.ProduceSync(ctx, records(run, "transactions", round*10, round*10+10)...).FirstErr(); err != nil {
			return nil, err
		}
		if err := client.EndTransaction(ctx, kgo.TransactionEndTry(round != 1)); err != nil {
			return nil, err
		}
	}
	return saw{"committed": 20}, nil
}

func exactlyOnce(run *contract.Run) (saw, error) {
	group := run.Topic("exactly-once")
	session, err := kgo.NewGroupTransactSession(append(secured(run), kgo.TransactionalID(group), kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(contract.Common), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := patient()
	defer cancel()
	copied := 0
	for copied < contract.CommonRecords && ctx.Err() == nil {
		fetches := session.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			session.Close()
			return nil, err
		}
		if err := session.Begin(); err != nil {
			session.Close()
			return nil, err
		}
		var out []*kgo.Record
		fetches.EachRecord(func(record *kgo.Record) {
			out = append(out, &kgo.Record{Topic: group, Key: record.Key, Value: record.Value})
		})
		err := session.ProduceSync(ctx, out...).FirstErr()
		committed, endErr := session.End(ctx, kgo.TransactionEndTry(err == nil))
		if err != nil || endErr != nil {
			session.Close()
			return nil, firstOf(err, endErr)
		}
		if committed {
			copied += len(out)
		}
	}
	session.Close()
	sum, err := contract.Settled(func() (int64, error) { return committed(run, group) })
	return saw{"copied": copied, "committed": sum}, err
}

func secured(run *contract.Run) []kgo.Opt {
	client, err := open(run)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	return client.Opts()
}

func firstOf(errors ...error) error {
	for _, err := range errors {
		if err != nil {
			return err
		}
	}
	return nil
}
