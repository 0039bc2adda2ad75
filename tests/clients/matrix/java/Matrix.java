import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;

/** Runs features of the client matrix with Kafka's own client; see the README beside the client programs. */
public final class Matrix {
    static final int RECORDS = 30;
    static final int COMMON_RECORDS = 60;
    static final String COMMON = "matrix-common";
    static final int PARTITIONS = 3;
    static final long PATIENCE_MS = 20_000;

    final String bootstrap;
    final String prefix;
    private final JsonNode security;

    private Matrix(String bootstrap, String prefix, JsonNode security) {
        this.bootstrap = bootstrap;
        this.prefix = prefix;
        this.security = security;
    }

    public static void main(String[] arguments) throws Exception {
        ObjectMapper json = new ObjectMapper();
        Matrix matrix = new Matrix(arguments[0], arguments[1], json.readTree(arguments[2]));
        for (int index = 3; index < arguments.length; index++) {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("feature", arguments[index]);
            try {
                line.put("saw", matrix.run(arguments[index]));
                line.put("outcome", "ok");
            } catch (Unsupported reason) {
                line.put("outcome", "unsupported");
                line.put("error", reason.getMessage());
            } catch (Throwable error) {
                line.put("outcome", "failed");
                line.put("error", chain(error));
            }
            System.out.println(json.writeValueAsString(line));
        }
        // Threads of a client that failed must not keep the program.
        System.exit(0);
    }

    private Map<String, ?> run(String feature) throws Exception {
        return switch (feature) {
            case "acks-0", "acks-1", "acks-all", "gzip", "snappy", "lz4", "zstd", "idempotent" ->
                new Producing(this).produce(feature);
            case "transactions" -> new Producing(this).transactions();
            case "exactly-once" -> new Producing(this).exactlyOnce();
            case "consume" -> new Consuming(this).consume();
            case "offsets" -> new Consuming(this).offsets();
            case "group-classic" -> new Consuming(this).group(feature, "classic");
            case "group-next-gen" -> new Consuming(this).group(feature, "consumer");
            case "share-group" -> optional("Sharing", "the client has no share consumer");
            case "topics" -> new Administration(this).topics();
            case "configs" -> new Administration(this).configs();
            case "acls" -> new Administration(this).acls();
            case "quotas" -> new Administration(this).quotas();
            case "groups" -> new Administration(this).groups();
            case "delete-records" -> new Administration(this).deleteRecords();
            case "cluster" -> new Administration(this).cluster();
            case "streams" -> optional("Counting", "Kafka Streams is not there");
            case "connect" -> optional("Connecting", "Kafka Connect is not there");
            default -> throw new Unsupported("no such feature in this program");
        };
    }

    /** Such a class is compiled only where the libraries have what it needs. */
    private Map<String, ?> optional(String name, String otherwise) throws Exception {
        Class<?> found;
        try {
            found = Class.forName(name);
        } catch (ClassNotFoundException absent) {
            throw new Unsupported(otherwise);
        }
        @SuppressWarnings("unchecked")
        Map<String, ?> saw = (Map<String, ?>) found.getDeclaredMethod("run", Matrix.class).invoke(null, this);
        return saw;
    }

    /** What every client is configured with. */
    Properties properties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("request.timeout.ms", "15000");
        properties.put("default.api.timeout.ms", "20000");
        String protocol = security.path("protocol").asText("PLAINTEXT");
        properties.put("security.protocol", protocol);
        if (security.has("ca")) {
            properties.put("ssl.truststore.type", "PEM");
            properties.put("ssl.truststore.location", security.get("ca").asText());
        }
        if (security.has("mechanism")) {
            String mechanism = security.get("mechanism").asText();
            String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
            properties.put("sasl.mechanism", mechanism);
            properties.put("sasl.jaas.config", "org.apache.kafka.common.security." + module + " required username=\""
                + security.get("username").asText() + "\" password=\"" + security.get("password").asText() + "\";");
        }
        return properties;
    }

    static byte[] key(int index) {
        return ("key-" + index).getBytes(StandardCharsets.UTF_8);
    }

    static byte[] value(String feature, int index) {
        return (feature + " " + index + " " + "x".repeat(200)).getBytes(StandardCharsets.UTF_8);
    }

    /** Something that this client cannot do, whoever the broker is. */
    static final class Unsupported extends Exception {
        Unsupported(String reason) {
            super(reason);
        }
    }

    private static String chain(Throwable error) {
        StringBuilder text = new StringBuilder();
        for (Throwable each = error; each != null; each = each.getCause()) {
            text.append(text.length() == 0 ? "" : ": ").append(each.getClass().getSimpleName()).append(' ')
                .append(each.getMessage());
        }
        return text.toString();
    }
}
