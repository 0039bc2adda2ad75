import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;

/**
 * Produces without end in its own thread, whatever happens to the brokers, and writes one line per record to a log:
 * A acknowledged (and, in a transaction, committed), X aborted by us, U sent with unknown outcome; then partition,
 * offset, timestamp, sequence number and content digest.
 */
final class Load extends Thread {
    private final JsonNode request;
    private final Events events;
    private final String topic;
    private final int partitions;
    private final int transactionRecords;
    private final int abortEvery;
    private final double rate;
    private final long limit;
    private final BufferedWriter log;
    private final AtomicLong sent = new AtomicLong();
    private final AtomicLong acknowledged = new AtomicLong();
    private final AtomicLong aborted = new AtomicLong();
    private final AtomicLong unknown = new AtomicLong();
    private final AtomicLong bytes = new AtomicLong();
    private final long started = System.nanoTime();
    private volatile boolean stopping;
    private volatile String lastError = "";
    /** How often the application was told of each kind of error. */
    private final Map<String, Long> errors = new ConcurrentHashMap<>();
    private volatile KafkaProducer<byte[], byte[]> producer;

    /** What became of one record: filled by the callback, written once its fate is known. */
    private static final class Sent {
        long sequence;
        long digest;
        // Ours, not the acknowledgement's: that one has another when the broker took a repeated batch for what it is.
        long timestamp;
        int size;
        volatile RecordMetadata ack;
    }

    Load(JsonNode request) throws IOException {
        super("load-" + request.get("load").asText());
        this.request = request;
        topic = request.get("topic").asText();
        partitions = request.path("partitions").asInt(1);
        transactionRecords = request.path("transaction_records").asInt(0);
        abortEvery = request.path("abort_every").asInt(0);
        rate = request.path("rate").asDouble(0);
        limit = request.path("limit").asLong(Long.MAX_VALUE);
        events = new Events(request);
        log = Files.newBufferedWriter(Path.of(request.get("log").asText()));
        setDaemon(true);
    }

    @Override
    public void run() {
        reopen();
        for (long transaction = 0; !stopping && sent.get() < limit; transaction++) {
            if (transactionRecords == 0) {
                send(false);
            } else {
                transaction(abortEvery > 0 && transaction % abortEvery == abortEvery - 1);
            }
        }
    }

    private Sent send(boolean transactional) {
        waitForTurn();
        Sent sending = new Sent();
        sending.sequence = sent.get();
        ProducerRecord<byte[], byte[]> record = events.next(topic, (int) (sending.sequence % partitions), sending.sequence);
        sending.timestamp = record.timestamp();
        sending.digest = TeelineClient.digest(record.key(), record.value(), record.headers().toArray());
        sending.size = (record.key() == null ? 0 : record.key().length) + (record.value() == null ? 0 : record.value().length);
        sent.incrementAndGet();
        try {
            producer.send(record, (metadata, error) -> {
                if (error != null) note(error);
                else sending.ack = metadata;
                if (!transactional) settle(error == null ? 'A' : 'U', sending);
            });
        } catch (KafkaException | IllegalStateException error) {
            note(error);
            if (!transactional) settle('U', sending);
            else throw error;
        }
        return sending;
    }

    private void transaction(boolean abort) {
        List<Sent> records = new ArrayList<>();
        char fate = 'U';
        try {
            producer.beginTransaction();
            for (int i = 0; i < transactionRecords && !stopping; i++) records.add(send(true));
            if (abort) {
                producer.flush();
                producer.abortTransaction();
            } else {
                producer.commitTransaction();
            }
            fate = abort ? 'X' : 'A';
        } catch (KafkaException | IllegalStateException error) {
            note(error);
            if (!stopping) reopen();
        }
        for (Sent each : records) settle(fate, each);
    }

    /** A failed transaction is left as it stands: a new producer with the same id fences and aborts it. */
    private void reopen() {
        if (producer != null) producer.close(Duration.ZERO);
        while (!stopping) {
            try {
                producer = TeelineClient.newProducer(request);
                return;
            } catch (KafkaException error) {
                note(error);
            }
        }
    }

    private void note(Exception error) {
        lastError = error.toString();
        errors.merge(error.getClass().getSimpleName(), 1L, Long::sum);
    }

    private synchronized void settle(char fate, Sent record) {
        switch (fate) {
            case 'A' -> {
                acknowledged.incrementAndGet();
                bytes.addAndGet(record.size);
            }
            case 'X' -> aborted.incrementAndGet();
            default -> unknown.incrementAndGet();
        }
        RecordMetadata ack = record.ack;
        try {
            log.write(fate + " " + (ack == null ? "-1 -1" : ack.partition() + " " + (ack.hasOffset() ? ack.offset() : -1)) + " "
                    + record.timestamp + " " + record.sequence + " " + Long.toHexString(record.digest) + "\n");
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private void waitForTurn() {
        if (rate <= 0) return;
        long due = started + (long) (sent.get() / rate * 1e9);
        for (long wait; !stopping && (wait = due - System.nanoTime()) > 0; ) LockSupport.parkNanos(Math.min(wait, 50_000_000));
    }

    void report(ObjectNode answer) {
        answer.put("sent", sent.get()).put("acknowledged", acknowledged.get()).put("aborted", aborted.get());
        answer.put("unknown", unknown.get()).put("bytes", bytes.get()).put("last_error", lastError);
        ObjectNode kinds = answer.putObject("errors");
        errors.forEach(kinds::put);
    }

    /** Ends the load: "seconds" is how long what is in flight may take; 0 gives it up, as when the cluster is gone. */
    void stop(ObjectNode answer, long seconds) throws Exception {
        stopping = true;
        if (seconds > 0) join(Duration.ofSeconds(seconds).toMillis());
        if (producer != null) producer.close(Duration.ofSeconds(seconds));
        join(Duration.ofSeconds(10).toMillis());
        synchronized (this) {
            log.close();
        }
        report(answer);
    }
}
