/**
 * HiveMQ with a configuration folder and a data folder, until SIGTERM; the tests start it. The property `window` is how
 * many messages a client may leave unacknowledged at most; by itself HiveMQ sends no more than 50.
 */

import com.hivemq.configuration.service.InternalConfigurations;
import com.hivemq.embedded.EmbeddedExtension;
import com.hivemq.embedded.EmbeddedHiveMQ;
import com.hivemq.extension.sdk.api.ExtensionMain;
import com.hivemq.extension.sdk.api.auth.SimpleAuthenticator;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStartOutput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopInput;
import com.hivemq.extension.sdk.api.parameter.ExtensionStopOutput;
import com.hivemq.extension.sdk.api.services.Services;
import java.nio.file.Path;

public final class Broker {
    /** Lets every client in: without an extension that decides, HiveMQ refuses all. */
    private static final class AllowAll implements ExtensionMain {
        @Override
        public void extensionStart(ExtensionStartInput input, ExtensionStartOutput output) {
            SimpleAuthenticator authenticator = (in, out) -> out.authenticateSuccessfully();
            Services.securityRegistry().setAuthenticatorProvider(in -> authenticator);
        }

        @Override
        public void extensionStop(ExtensionStopInput input, ExtensionStopOutput output) {}
    }

    public static void main(String[] arguments) throws Exception {
        InternalConfigurations.MAX_INFLIGHT_WINDOW_SIZE_MESSAGES =
                Integer.getInteger("window", InternalConfigurations.MAX_INFLIGHT_WINDOW_SIZE_MESSAGES);
        EmbeddedExtension allowAll = EmbeddedExtension.builder()
                .withId("allow-all")
                .withName("allow all")
                .withVersion("1")
                .withPriority(0)
                .withStartPriority(0)
                .withExtensionMain(new AllowAll())
                .build();
        EmbeddedHiveMQ broker = EmbeddedHiveMQ.builder()
                .withConfigurationFolder(Path.of(arguments[0]))
                .withDataFolder(Path.of(arguments[1]))
                .withEmbeddedExtension(allowAll)
                .build();
        broker.start().join();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> broker.stop().join()));
    }

    private Broker() {}
}
