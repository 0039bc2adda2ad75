package main

import (
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// trace notes which requests a client wrote and to whom, in order: for tests that ask what a client had to ask.
type trace struct {
	mutex   sync.Mutex
	written []answer
}

func (this *trace) OnBrokerWrite(to kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if err != nil {
		return
	}
	this.mutex.Lock()
	defer this.mutex.Unlock()
	address := net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port)))
	this.written = append(this.written, answer{"key": key, "node": to.NodeID, "address": address})
}

// take gives what was noted since it was last asked.
func (this *trace) take() []answer {
	this.mutex.Lock()
	defer this.mutex.Unlock()
	noted := this.written
	this.written = nil
	return noted
}
