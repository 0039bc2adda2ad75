import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.Random;
import java.util.SplittableRandom;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Makes realistic JSON events of a named shape from a seed, so that a run can be repeated. */
final class Events {
    private static final String[] PAGES = {"/", "/search", "/cart", "/checkout", "/products/1842", "/products/77", "/help", "/account/orders"};
    private static final String[] AGENTS = {
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X)",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
    };
    private static final String[] CITIES = {"Leipzig", "Köln", "Graz", "Łódź", "Malmö", "Porto", "Brno", "Genève"};
    private static final String[] CURRENCIES = {"EUR", "SEK", "CHF", "PLN"};
    private final SplittableRandom random;
    private final String shape;
    private final int valueBytes;
    private final long firstTimestamp;
    private final double stepMs;

    Events(JsonNode request) {
        random = new SplittableRandom(request.path("seed").asLong(1));
        shape = request.path("shape").asText("plain");
        valueBytes = request.path("value_bytes").asInt(200);
        firstTimestamp = request.path("first_timestamp").asLong(-1);
        stepMs = request.path("step_ms").asDouble(1);
    }

    ProducerRecord<byte[], byte[]> next(String topic, int partition, long sequence) {
        long timestamp = firstTimestamp < 0 ? System.currentTimeMillis() : firstTimestamp + (long) (sequence * stepMs);
        return switch (shape) {
            case "clicks" -> clicks(topic, partition, late(timestamp), sequence);
            case "payments" -> payments(topic, partition, timestamp, sequence);
            case "customers" -> customers(topic, partition, timestamp);
            default -> plain(topic, partition, timestamp, sequence);
        };
    }

    /** One event in fifty arrives up to a quarter of an hour late, as events from phones do. */
    private long late(long timestamp) {
        return random.nextInt(50) == 0 ? timestamp - random.nextInt(900_000) : timestamp;
    }

    private ProducerRecord<byte[], byte[]> clicks(String topic, int partition, long timestamp, long sequence) {
        int visitor = random.nextInt(20_000);
        String value = "{\"event\":\"page_view\",\"event_id\":\"" + id() + "\",\"sequence\":" + sequence + ",\"visitor\":\"v-" + visitor
                + "\",\"session\":\"" + id() + "\",\"page\":\"" + pick(PAGES) + "\",\"referrer\":\"https://www.example.org" + pick(PAGES)
                + "\",\"agent\":\"" + pick(AGENTS) + "\",\"duration_ms\":" + random.nextInt(90_000) + ",\"viewport\":{\"width\":"
                + (320 + random.nextInt(1600)) + ",\"height\":" + (480 + random.nextInt(900)) + "}}";
        return new ProducerRecord<>(topic, partition, timestamp, utf8("v-" + visitor), utf8(value));
    }

    private ProducerRecord<byte[], byte[]> payments(String topic, int partition, long timestamp, long sequence) {
        String value = "{\"payment_id\":\"" + id() + "\",\"sequence\":" + sequence + ",\"order_id\":" + (400_000 + sequence / 2)
                + ",\"amount\":" + random.nextInt(100_000) / 100.0 + ",\"currency\":\"" + pick(CURRENCIES) + "\",\"method\":\""
                + (random.nextBoolean() ? "card" : "transfer") + "\",\"status\":\"" + (random.nextInt(20) == 0 ? "declined" : "captured")
                + "\",\"merchant\":{\"id\":" + random.nextInt(500) + ",\"city\":\"" + pick(CITIES) + "\"},\"attempts\":" + (1 + random.nextInt(3)) + "}";
        return new ProducerRecord<>(topic, partition, timestamp, utf8("order-" + (400_000 + sequence / 2)), utf8(value));
    }

    private ProducerRecord<byte[], byte[]> customers(String topic, int partition, long timestamp) {
        int customer = random.nextInt(5_000);
        boolean deleted = random.nextInt(25) == 0;
        String value = "{\"customer_id\":" + customer + ",\"name\":\"Customer " + customer + "\",\"city\":\"" + pick(CITIES)
                + "\",\"newsletter\":" + random.nextBoolean() + ",\"loyalty_points\":" + random.nextInt(10_000) + ",\"address\":{\"street\":\"Ring "
                + random.nextInt(300) + "\",\"zip\":\"" + (10_000 + random.nextInt(80_000)) + "\"}}";
        ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(topic, partition, timestamp, utf8("customer-" + customer), deleted ? null : utf8(value));
        record.headers().add("source", utf8("crm")).add("trace-id", utf8(id()));
        if (random.nextInt(10) == 0) record.headers().add("source", null).add("note", new byte[0]);
        return record;
    }

    private ProducerRecord<byte[], byte[]> plain(String topic, int partition, long timestamp, long sequence) {
        byte[] value = new byte[valueBytes];
        new Random(sequence).nextBytes(value);
        byte[] label = utf8(sequence + " ");
        System.arraycopy(label, 0, value, 0, Math.min(label.length, value.length));
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, partition, timestamp, utf8("key-" + sequence % 997), value);
        record.headers().add("sequence", utf8(Long.toString(sequence)));
        return record;
    }

    private String id() {
        return Long.toHexString(random.nextLong()) + Long.toHexString(random.nextLong());
    }

    private String pick(String[] from) {
        return from[random.nextInt(from.length)];
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
