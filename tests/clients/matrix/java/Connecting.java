import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.kafka.connect.cli.ConnectDistributed;
import org.apache.kafka.connect.runtime.Connect;

/** Kafka Connect, distributed: lines of one file through a topic into another file. */
final class Connecting {
    private static final int LINES = 20;

    private Connecting() {
    }

    static Map<String, ?> run(Matrix matrix) throws Exception {
        Path directory = Files.createTempDirectory("matrix-connect");
        Path input = directory.resolve("in.txt");
        Path output = directory.resolve("out.txt");
        List<String> lines = IntStream.range(0, LINES).mapToObj(each -> "line " + each).toList();
        Files.write(input, lines);
        int port;
        try (ServerSocket socket = new ServerSocket(0)) {
            port = socket.getLocalPort();
        }
        Connect<?> connect = new ConnectDistributed().startConnect(worker(matrix, port));
        try {
            create(port, "source", Map.of("connector.class", "org.apache.kafka.connect.file.FileStreamSourceConnector",
                "file", input.toString(), "topic", matrix.prefix + "-connect"));
            create(port, "sink", Map.of("connector.class", "org.apache.kafka.connect.file.FileStreamSinkConnector",
                "file", output.toString(), "topics", matrix.prefix + "-connect"));
            List<String> found = List.of();
            long deadline = System.currentTimeMillis() + 2 * Matrix.PATIENCE_MS;
            while (found.size() < LINES && System.currentTimeMillis() < deadline) {
                Thread.sleep(100);
                found = Files.exists(output) ? Files.readAllLines(output) : List.of();
            }
            return Map.of("lines", found.size(), "equal", found.stream().sorted().toList().equals(lines.stream().sorted().toList()));
        } finally {
            connect.stop();
            connect.awaitStop();
        }
    }

    private static Map<String, String> worker(Matrix matrix, int port) {
        Map<String, String> worker = new HashMap<>();
        matrix.properties().forEach((name, value) -> {
            worker.put((String) name, (String) value);
            if (!name.equals("bootstrap.servers")) {
                worker.put("producer." + name, (String) value);
                worker.put("consumer." + name, (String) value);
            }
        });
        worker.remove("default.api.timeout.ms");
        worker.put("group.id", matrix.prefix + "-connect-workers");
        worker.put("listeners", "http://127.0.0.1:" + port);
        worker.put("key.converter", "org.apache.kafka.connect.storage.StringConverter");
        worker.put("value.converter", "org.apache.kafka.connect.storage.StringConverter");
        worker.put("offset.flush.interval.ms", "500");
        worker.put("consumer.auto.offset.reset", "earliest");
        worker.put("plugin.discovery", "service_load");
        for (String kind : List.of("offset", "config", "status")) {
            worker.put(kind + ".storage.topic", matrix.prefix + "-connect-" + kind);
            worker.put(kind + ".storage.replication.factor", "1");
        }
        worker.put("offset.storage.partitions", "1");
        worker.put("status.storage.partitions", "1");
        return worker;
    }

    private static void create(int port, String name, Map<String, String> config) throws Exception {
        String body = new ObjectMapper().writeValueAsString(Map.of("name", name, "config", config));
        var request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/connectors"))
            .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body)).build();
        HttpResponse<String> answer = null;
        // A worker answers 409 while it is still joining.
        for (long end = System.currentTimeMillis() + Matrix.PATIENCE_MS; System.currentTimeMillis() < end; ) {
            answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() == 201) {
                return;
            }
            Thread.sleep(200);
        }
        throw new IllegalStateException("Connect answered " + answer.statusCode() + " " + answer.body());
    }
}
