// A producer in Java, with nothing set but where Kafka is: it writes a record for each line of its input, the line is the key.
// Run as one file: java -cp 'LIBS/*' KeyedProducer.java BOOTSTRAP TOPIC

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class KeyedProducer {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", arguments[0]);
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
             var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String key = lines.readLine(); key != null; key = lines.readLine()) {
                producer.send(new ProducerRecord<>(arguments[1], key, "")).get();
            }
        }
    }
}
