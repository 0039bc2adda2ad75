package main

import (
	"context"
	"errors"
	"time"

	"github.com/IBM/sarama"

	"teeline/tests/clients/matrix/go/contract"
)

func consume(run *contract.Run) (saw, error) {
	client, err := open(run)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	records := make(chan *sarama.ConsumerMessage, contract.CommonRecords)
	for number := range int32(contract.Partitions) {
		partition, err := consumer.ConsumePartition(contract.Common, number, sarama.OffsetOldest)
		if err != nil {
			return nil, err
		}
		go func() {
			for record := range partition.Messages() {
				records <- record
			}
		}()
		defer partition.AsyncClose()
	}
	lines := contract.Lines{}
	deadline := time.After(contract.Patience)
	for len(lines) < contract.CommonRecords {
		select {
		case record := <-records:
			lines.Add(record.Partition, record.Offset, record.Key, record.Value)
		case <-deadline:
			return nil, errors.New("not everything was read within the time")
		}
	}
	return saw{"records": len(lines), "sha256": lines.Digest()}, nil
}

func offsets(run *contract.Run) (saw, error) {
	client, err := open(run)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	result := saw{}
	for name, at := range map[string]int64{"earliest": sarama.OffsetOldest, "latest": sarama.OffsetNewest, "at_time": 1} {
		list := make([]int64, contract.Partitions)
		for partition := range list {
			if list[partition], err = client.GetOffset(contract.Common, int32(partition), at); err != nil {
				return nil, err
			}
		}
		result[name] = list
	}
	return result, nil
}

// member reads what it is assigned until everything was read; take handles each record.
type member struct {
	take   func(sarama.ConsumerGroupSession, *sarama.ConsumerMessage) error
	failed chan error
}

func (m *member) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case record, open := <-claim.Messages():
			if !open {
				return nil
			}
			if err := m.take(session, record); err != nil {
				m.failed <- err
				return err
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

// consumeGroup is a member of a group until cancel is called by take, or patience ends.
func consumeGroup(run *contract.Run, name string, take func(sarama.ConsumerGroupSession, *sarama.ConsumerMessage, func()) error) error {
	client, err := open(run)
	if err != nil {
		return err
	}
	defer client.Close()
	group, err := sarama.NewConsumerGroupFromClient(name, client)
	if err != nil {
		return err
	}
	defer group.Close()
	ctx, cancel := context.WithTimeout(context.Background(), contract.Patience)
	defer cancel()
	handler := &member{failed: make(chan error, contract.Partitions)}
	handler.take = func(session sarama.ConsumerGroupSession, record *sarama.ConsumerMessage) error {
		return take(session, record, cancel)
	}
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{contract.Common}, handler); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case err := <-handler.failed:
			return err
		default:
		}
	}
	return nil
}

func group(run *contract.Run) (saw, error) {
	name := run.Topic("group-classic")
	lines := contract.Lines{}
	guard := make(chan struct{}, 1)
	err := consumeGroup(run, name, func(session sarama.ConsumerGroupSession, record *sarama.ConsumerMessage, done func()) error {
		guard <- struct{}{}
		defer func() { <-guard }()
		lines.Add(record.Partition, record.Offset, record.Key, record.Value)
		session.MarkMessage(record, "")
		if len(lines) == contract.CommonRecords {
			session.Commit()
			done()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sum, err := committed(run, name)
	return saw{"records": len(lines), "committed": sum}, err
}

// exactlyOnce copies every record in a transaction of its own, with its offset.
func exactlyOnce(run *contract.Run) (saw, error) {
	name := run.Topic("exactly-once")
	client, producer, err := transactional(run, name)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	defer producer.Close()
	copied := 0
	guard := make(chan struct{}, 1)
	err = consumeGroup(run, name, func(session sarama.ConsumerGroupSession, record *sarama.ConsumerMessage, done func()) error {
		guard <- struct{}{}
		defer func() { <-guard }()
		if err := producer.BeginTxn(); err != nil {
			return err
		}
		out := &sarama.ProducerMessage{Topic: name, Partition: record.Partition,
			Key: sarama.ByteEncoder(record.Key), Value: sarama.ByteEncoder(record.Value)}
		if _, _, err := producer.SendMessage(out); err != nil {
			return err
		}
		if err := producer.AddMessageToTxn(record, name, nil); err != nil {
			return err
		}
		if err := producer.CommitTxn(); err != nil {
			return err
		}
		if copied++; copied == contract.CommonRecords {
			done()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sum, err := contract.Settled(func() (int64, error) { return committed(run, name) })
	return saw{"copied": copied, "committed": sum}, err
}

func committed(run *contract.Run, group string) (int64, error) {
	admin, err := administrator(run)
	if err != nil {
		return 0, err
	}
	defer admin.Close()
	answer, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{contract.Common: {0, 1, 2}})
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, block := range answer.Blocks[contract.Common] {
		sum += max(block.Offset, 0)
	}
	return sum, nil
}
